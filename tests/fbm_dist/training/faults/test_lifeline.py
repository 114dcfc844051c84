"""Orphans notice: launchers of every kind are really killed, and the rank below them stops; a user's shell may go."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from fbm_dist.training.faults.lifeline import ORPHANED, Lifeline
from tests.datasets import write_dataset

ROOT = Path(__file__).parent.parent.parent.parent.parent
PATIENCE = 120.0  # seconds; a look is due every second, but a start under load takes long

RANK = """
import os, pathlib, sys, threading, time
from fbm_dist.training.faults import lifeline as room
from fbm_dist.training.faults.lifeline import Lifeline

if "ORPHAN" in os.environ:  # wait for the launcher's end; whoever takes in orphans here counts as an init
    while os.getppid() == int(os.environ["ORPHAN"]):
        time.sleep(0.05)
    room.INITS = (pathlib.Path(f"/proc/{os.getppid()}/comm").read_text().strip(),)
number = os.environ.get("RANK", "0")
told = threading.Event()

def lost(reason):
    pathlib.Path(f"lost-{number}").write_text(reason)
    told.set()

with Lifeline(lost, grace=float(os.environ.get("GRACE", "60"))) as lifeline:
    pathlib.Path("chain").write_text(repr([role for role, _ in lifeline.chain]))
    pathlib.Path(f"started-{number}.part").write_text(str(os.getpid()))
    pathlib.Path(f"started-{number}.part").rename(f"started-{number}")
    told.wait(60)
    if "GRACE" in os.environ:
        time.sleep(60)
    print("the last line before the checkpoint", flush=True)
    pathlib.Path(f"ended-{number}").write_text("")
"""
# A launcher that starts its arguments, reads what they print, and writes the exit code down.
START = """#!{python}
import pathlib, subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE)
child.stdout.read()
pathlib.Path("code").write_text(str(child.wait()))
"""


@pytest.fixture
def rank(tmp_path: Path) -> Iterator[Callable[..., list[psutil.Process]]]:
    """start(*command, **variables): runs it with `deepspeed`, `sshd`, `slurmstepd` as above on the path and a launch module
    as above; the processes from the first to the rank, once that is ready. None of them outlives the test."""
    for name in ("deepspeed", "sshd", "slurmstepd"):
        (tmp_path / name).write_text(START.format(python=sys.executable))
        (tmp_path / name).chmod(0o755)
    for path in (tmp_path / "lib/deepspeed/__init__.py", tmp_path / "lib/deepspeed/launcher/__init__.py"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "lib/deepspeed/launcher/launch.py").write_text(START.format(python=sys.executable))
    (tmp_path / "rank.py").write_text(RANK)
    started: list[psutil.Process] = []

    def start(*command: str, **variables: str) -> list[psutil.Process]:
        paths = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": f"{tmp_path / 'lib'}:{ROOT}"}
        first = subprocess.Popen(command, cwd=tmp_path, env={**os.environ, **paths, **variables})
        started.append(psutil.Process(first.pid))
        wait(lambda: (tmp_path / "started-0").exists())
        started.extend(started[0].children(recursive=True))
        return started

    yield start
    for process in started:
        if process.is_running():
            process.kill()


def wait(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


PYTHON = [sys.executable, "-u"]
LAUNCHED = [*PYTHON, "-m", "deepspeed.launcher.launch", *PYTHON, "rank.py"]
BY_SSH = (
    f"export X=1; cd .; {shlex.join(LAUNCHED)}; true"  # the last command keeps bash from giving its place to python
)


@pytest.mark.parametrize(
    ("command", "killed", "chain", "reason"),
    [
        (["deepspeed", *LAUNCHED], 0, ["the deepspeed launch process", "the deepspeed runner"], "the deepspeed runner"),
        (["deepspeed", *LAUNCHED], 1, ["the deepspeed launch process", "the deepspeed runner"], "launch process"),
        (["sshd", "bash", "-c", BY_SSH], 0, [*["the deepspeed launch process"] * 2, "the ssh session"], "ssh session"),
        (["slurmstepd", *PYTHON, "rank.py"], 0, ["the Slurm step"], "the Slurm step"),
    ],
    ids=["runner", "launch", "ssh", "slurm"],
)
def test_a_rank_stops_in_good_order_when_its_launcher_is_killed(
    command: list[str],
    killed: int,
    chain: list[str],
    reason: str,
    rank: Callable[..., list[psutil.Process]],
    tmp_path: Path,
) -> None:
    processes = rank(*command)
    assert (tmp_path / "chain").read_text() == repr(chain)
    processes[killed].kill()
    wait((tmp_path / "ended-0").exists)  # also printed a line that nobody could read
    assert f"{reason} (pid {processes[killed].pid}) has ended" in (tmp_path / "lost-0").read_text()
    assert not psutil.wait_procs(processes[-1:], PATIENCE)[1]


def test_a_rank_that_hangs_without_its_peers_is_ended(
    rank: Callable[..., list[psutil.Process]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    processes = rank("deepspeed", *LAUNCHED, GRACE="0.5")
    processes[0].kill()
    wait((tmp_path / "code").exists)
    wait(lambda: bool((tmp_path / "code").read_text()))
    assert (tmp_path / "code").read_text() == str(ORPHANED), "seen by launch, which lived on"
    assert not (tmp_path / "ended-0").exists()
    assert f"the deepspeed runner (pid {processes[0].pid}) has ended, and this rank has not" in capfd.readouterr().err


def test_the_shell_above_the_launcher_may_go(rank: Callable[..., list[psutil.Process]], tmp_path: Path) -> None:
    processes = rank("sshd", "bash", "-c", "deepspeed $LAUNCHED; true", LAUNCHED=shlex.join(LAUNCHED))
    assert (tmp_path / "chain").read_text() == repr(["the deepspeed launch process", "the deepspeed runner"])
    for process in processes[:2]:  # the session, and the shell in it
        process.kill()
    time.sleep(2.5)
    assert processes[-1].is_running()
    assert not (tmp_path / "lost-0").exists()


@pytest.mark.parametrize(
    "script",
    [
        "export CROSS_RANK=0 ORPHAN=$$; {rank} & sleep 0.2",  # what DeepSpeed's launch gives to its ranks
        "export ORPHAN=$$; {rank} & sleep 0.2",
    ],
    ids=["launched", "plain"],
)
def test_a_launcher_that_died_before_its_rank_was_ready_counts(
    script: str, request: pytest.FixtureRequest, rank: Callable[..., list[psutil.Process]], tmp_path: Path
) -> None:
    rank("sh", "-c", script.format(rank=shlex.join([*PYTHON, "rank.py"])))
    process = psutil.Process(int((tmp_path / "started-0").read_text()))
    try:
        if "launched" in request.node.name:
            wait((tmp_path / "ended-0").exists)
            assert (tmp_path / "lost-0").read_text() == "the launcher had ended before this rank was ready"
        else:  # `nohup python launch/pretrain.py &`, and the shell has gone
            time.sleep(1.5)
            assert process.is_running()
            assert not (tmp_path / "lost-0").exists()
    finally:
        if process.is_running():
            process.kill()


def test_plain_python_has_no_launcher() -> None:
    with Lifeline(lambda reason: pytest.fail(reason)) as lifeline:
        assert lifeline.chain == []
        assert not lifeline._thread.is_alive()


@pytest.mark.distributed
@pytest.mark.slow
def test_sigterm_to_the_real_deepspeed_leaves_no_orphan(tmp_path: Path) -> None:
    (tmp_path / "rank.py").write_text(RANK)
    paths = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    command = ["deepspeed", "-q", "--num_accelerators", "2", "rank.py"]
    with (tmp_path / "log").open("w") as log:
        runner = subprocess.Popen(
            command, cwd=tmp_path, stdout=log, stderr=log, env={**os.environ, **paths, "DS_ACCELERATOR": "cpu"}
        )
    family: list[psutil.Process] = []
    try:
        wait((tmp_path / "started-0").exists)
        wait((tmp_path / "started-1").exists)
        family = psutil.Process(runner.pid).children(recursive=True)
        assert len(family) >= 3, "launch and two ranks"
        runner.send_signal(signal.SIGTERM)
        assert runner.wait(PATIENCE) == -signal.SIGTERM
        _, orphans = psutil.wait_procs(family, PATIENCE)
        assert not orphans
        for number in (0, 1):
            assert "the deepspeed runner" in (tmp_path / f"lost-{number}").read_text()
            assert (tmp_path / f"ended-{number}").exists()
    finally:
        runner.kill()
        for process in family:
            if process.is_running():
                process.kill()


READER = """
import sys, time
from pathlib import Path
from fbm_dist.data.loader import Loader
from fbm_dist.schema import ClipSpec, Data

if __name__ == "__main__":
    data = Data(path=Path("data"), clip=ClipSpec(frames=6, size=32), workers=2)
    clips = iter(Loader(data, seed=0, global_batch=2, micro_batch=2))
    next(clips)
    Path("started-0").touch()
    time.sleep(60)
"""


def test_a_killed_rank_leaves_no_reader_behind(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", clips=4)
    (tmp_path / "rank.py").write_text(READER)
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "FBM_CACHE": str(tmp_path / "cache")}
    rank = subprocess.Popen([sys.executable, "rank.py"], cwd=tmp_path, env=variables)
    readers: list[psutil.Process] = []
    try:
        wait((tmp_path / "started-0").exists)
        readers = psutil.Process(rank.pid).children(recursive=True)
        assert len(readers) >= 3, "two readers, and Python's resource tracker"
        shared = [Path(area.path) for reader in readers for area in reader.memory_maps() if "/dev/shm/" in area.path]
        assert any(area.exists() for area in shared), "the readers' locks"
        rank.kill()
        assert not psutil.wait_procs(readers, PATIENCE)[1]
        assert not [area for area in shared if area.exists()]
    finally:
        rank.kill()
        rank.wait()
        for process in readers:
            if process.is_running():
                process.kill()


SIGNALLED = """
import signal, sys, time
from pathlib import Path
from fbm_dist.data.loader import Loader
from fbm_dist.schema import ClipSpec, Data

if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda *of: Path("asked").touch())
    with Loader(Data(path=Path("data"), clip=ClipSpec(frames=6, size=32)), seed=0, global_batch=2, micro_batch=2) as loader:
        clips = iter(loader)
        next(clips)
        Path("started-0").touch()
        while not Path("asked").exists():
            time.sleep(0.05)
        for _ in range(20):
            next(clips)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_every_process_of_the_job_leaves_the_readers_at_work(number: int, tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", clips=4)
    (tmp_path / "rank.py").write_text(SIGNALLED)
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "FBM_CACHE": str(tmp_path / "cache")}
    rank = subprocess.Popen([sys.executable, "rank.py"], cwd=tmp_path, env=variables, start_new_session=True)
    try:
        wait((tmp_path / "started-0").exists)
        os.killpg(rank.pid, number)  # as slurmstepd and DeepSpeed's launch do
        assert rank.wait(PATIENCE) == 0
    finally:
        rank.kill()
        rank.wait()
