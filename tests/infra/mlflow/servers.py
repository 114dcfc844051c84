"""Debian's PostgreSQL and the real `mlflow server` as its entry script starts it; each dies with its block or its test."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tests.clusters.runs import ROOT, environment

SERVE = ROOT / "infra/mlflow/serve.sh"
OWNER = "mlflow"  # of the databases
PATIENCE = 120.0  # seconds for a server to come up: MLflow imports for ten, and migrates a new database for as long


def program(name: str) -> str | None:
    """Where one of PostgreSQL's programs is: Debian keeps the server's out of PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(found[-1]) if found else shutil.which(name)


def obstacle() -> str | None:
    """Why there is no PostgreSQL here; None: there is."""
    for name in ("initdb", "postgres"):
        if program(name) is None:
            return f"{name} is not installed (Debian: postgresql)"
    return None


class Postgres:
    """A database server that listens on a socket in its folder alone, with a password; run by an unprivileged user."""

    def __init__(self, folder: Path, password: str) -> None:
        """Make an empty cluster in `folder`, an existing one whose path is short (sockets have 107 characters)."""
        self.folder, self.password = folder, password
        self.process: subprocess.Popen[bytes] | None = None
        # PostgreSQL refuses root; the package has made this user
        self._as = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
        (folder / "password").write_text(password)
        if self._as:
            for path in (folder, folder / "password"):
                shutil.chown(path, "postgres")
        words = ["--username", OWNER, "--auth", "scram-sha-256", "--pwfile", f"{folder}/password", "--no-sync"]
        command = [*self._as, str(program("initdb")), "--pgdata", f"{folder}/data", *words]
        made = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False, timeout=60)
        assert made.returncode == 0, made.stderr

    def start(self) -> None:
        """Run it, and wait until it takes connections."""
        options = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={self.folder}"]
        command = [*self._as, "--pdeathsig=KILL"] if self._as else ["setpriv", "--pdeathsig=KILL"]
        command += [str(program("postgres")), "-D", f"{self.folder}/data", *options]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + PATIENCE
        while "ready" not in (self._status()):
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.05)

    def _status(self) -> str:
        """The last line of postmaster.pid: starting, ready, stopping; nothing before it exists."""
        try:
            return (self.folder / "data/postmaster.pid").read_text().splitlines()[7]
        except (OSError, IndexError):
            return ""

    def stop(self) -> None:
        """As a crash: nothing is flushed, connections are cut."""
        if self.process:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(30)
            self.process = None

    def variables(self) -> dict[str, str]:
        """What a client needs, as the environment has it."""
        return {"PGHOST": str(self.folder), "PGUSER": OWNER, "PGPASSWORD": self.password, "PGDATABASE": "mlflow"}


class Tracking:
    """infra/mlflow/serve.sh with the settings `variables`, on a free port."""

    def __init__(self, folder: Path, variables: dict[str, str]) -> None:
        self.folder, self.variables = folder, variables
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def call(self, *words: str, **changed: str) -> subprocess.CompletedProcess[str]:
        """The script to its end."""
        command = ["bash", str(SERVE), *words]
        env = {**self._environment(), **changed}
        return subprocess.run(
            command, env=env, cwd=self.folder, capture_output=True, text=True, timeout=200, check=False
        )

    def start(self) -> None:
        """Run it, and wait until it answers."""
        with (self.folder / "mlflow.log").open("ab") as log:
            self.process = subprocess.Popen(
                ["bash", str(SERVE)],
                env=self._environment(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=1)
                return
            except (urllib.error.URLError, OSError):
                assert self.process.poll() is None, self.log()
                assert time.monotonic() < deadline, self.log()
                time.sleep(0.2)

    def log(self) -> str:
        """The end of what the server has said."""
        return (self.folder / "mlflow.log").read_text()[-4000:]

    def words(self) -> list[str]:
        """The command lines of the server and all below it."""
        assert self.process is not None
        own = psutil.Process(self.process.pid)
        return [" ".join(process.cmdline()) for process in (own, *own.children(recursive=True))]

    def kill(self) -> None:
        """SIGKILL to it and its workers."""
        if self.process:
            with suppress(ProcessLookupError):  # it has ended by itself
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def terminate(self) -> int:
        """SIGTERM to the first process alone, as a container gets it; its exit code."""
        assert self.process is not None
        self.process.terminate()
        code = self.process.wait(60)
        self.process = None
        return code

    def _environment(self) -> dict[str, str]:
        own = {"MLFLOW_HOST": "127.0.0.1", "MLFLOW_PORT": str(self.port), "MLFLOW_WORKERS": "1"}
        kept = {
            name: value
            for name, value in environment().items()
            if not name.startswith(("MLFLOW_", "AWS_", "PG")) and name != "PYTHONPATH"
        }
        return {**kept, "TMPDIR": str(self.folder), **own, **self.variables}


@contextmanager
def postgres(folder: Path, password: str) -> Iterator[Postgres]:
    """A running one; gone afterwards."""
    server = Postgres(folder, password)
    try:
        server.start()
        yield server
    finally:
        server.stop()
