"""A rank whose launcher is gone stops in good order: DeepSpeed's runner passes no signal on, and its ranks outlive it.

Looked after are the launcher's processes above this one, and what carries them on a remote node (an ssh session, a Slurm step).
A shell is not: `nohup deepspeed ... &` goes on after the logout.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

ORPHANED = 75  # exit code, as of a run that a signal stopped: the same command goes on
PERIOD = 1.0  # seconds between two looks
GRACE = 120.0  # seconds for the last step and its checkpoint
PROC = Path("/proc")

RUNNER, LAUNCH, TORCHRUN = "the deepspeed runner", "the deepspeed launch process", "torchrun"
PROGRAMS = {"deepspeed": RUNNER, "deepspeed.pt": RUNNER, "ds": RUNNER, "torchrun": TORCHRUN}
MODULES = {
    "deepspeed": RUNNER,
    "deepspeed.launcher.runner": RUNNER,
    "deepspeed.launcher.launch": LAUNCH,
    "torch.distributed.run": TORCHRUN,
    "torch.distributed.launch": TORCHRUN,
}
SHELLS = ("bash", "sh", "dash", "zsh", "ksh")
SESSIONS = ("sshd", "sshd-session")  # the second since OpenSSH 9.8
STEP = "slurmstepd"
INITS = ("init", "systemd", "tini", "docker-init", "dumb-init")  # who takes in orphans; nobody starts ranks from them
STARTED_BY = ("CROSS_RANK", "TORCHELASTIC_RUN_ID")  # variables that DeepSpeed's launch and torchrun give to their ranks


@dataclass(frozen=True)
class Ancestor:
    """A process above this one. The number alone could be another process's by now; with its start time it is one for all."""

    pid: int
    started: int  # clock ticks since the machine's start
    parent: int
    name: str
    arguments: tuple[str, ...]

    @property
    def role(self) -> str | None:
        """Which launcher's process it is; None: no launcher's."""
        first = Path(self.arguments[0]).name if self.arguments else ""
        if (
            first.lstrip("-") in SHELLS
        ):  # what ssh starts: bash -c "export ...; python -m deepspeed.launcher.launch ..."
            text = " ".join(self.arguments[2:]) if self.arguments[1:2] == ("-c",) else ""
            return LAUNCH if "-m deepspeed.launcher.launch " in text else None
        rest = self.arguments
        if first.startswith("python"):
            rest = self.arguments[1:]
            while rest and rest[0].startswith("-") and rest[0] != "-m":
                rest = rest[2 if rest[0] in ("-X", "-W") else 1 :]
            if rest[:1] == ("-m",):
                return MODULES.get(rest[1]) if rest[1:] else None
        return PROGRAMS.get(Path(rest[0]).name) if rest else None

    def alive(self) -> bool:
        """Whether it still runs; dead and not yet waited for is dead."""
        now = _status(self.pid)
        return now is not None and now[0] not in "ZX" and now[2] == self.started


class Lifeline:
    """Context: a thread looks after the launcher's processes; without a launcher it does nothing.

    Attributes:
        chain: (what it is, the process), nearest first.
    """

    def __init__(self, lost: Callable[[str], None], grace: float = GRACE) -> None:
        """Find the launcher.

        Args:
            lost: called once, from the thread, with what is gone: has the run stop after its step.
            grace: seconds after which a process that is still inside (its peers are gone, it waits for them) is ended.
        """
        self.lost, self.grace = lost, grace
        self.chain, self._reason = launchers(os.getpid())
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, name="lifeline", daemon=True)

    def __enter__(self) -> Lifeline:
        if self.chain or self._reason:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()

    def _look(self) -> None:
        while not self._reason:
            if self._done.wait(PERIOD):
                return
            gone = [f"{role} (pid {process.pid}) has ended" for role, process in self.chain if not process.alive()]
            self._reason = gone[0] if gone else None  # the nearest: those above end with it, not it with them
        _keep_output()
        self.lost(self._reason)
        for _ in range(int(self.grace / PERIOD) or 1):
            if self._done.wait(min(PERIOD, self.grace)):
                return
            _keep_output()
        with suppress(OSError):
            text = f"error: {self._reason}, and this rank has not come to an end in {self.grace:.0f} s; it is ended\n"
            os.write(2, text.encode())
        os._exit(ORPHANED)


def launchers(pid: int) -> tuple[list[tuple[str, Ancestor]], str | None]:
    """The launcher's processes above process `pid`, and the reason why it is an orphan already (None: it is not)."""
    found: list[tuple[str, Ancestor]] = []
    above = _above(pid)
    while above and (role := above.role):
        found.append((role, above))
        above = _above(above.pid)
    top = found[-1][0] if found else None
    if above is None:
        return found, None
    if above.name == STEP:
        found.append(("the Slurm step", above))
    elif top == LAUNCH and above.name in SESSIONS and above.pid != 1:
        found.append(("the ssh session", above))
    elif above.name in INITS and (top == LAUNCH or (not found and any(name in os.environ for name in STARTED_BY))):
        return found, "the launcher had ended before this rank was ready"
    return found, None


def _above(pid: int) -> Ancestor | None:
    """The parent of process `pid`; None where there is none, or none that may be looked at."""
    own = _status(pid)
    status = _status(own[1]) if own and own[1] else None
    if own is None or status is None:
        return None
    try:
        name = (PROC / str(own[1]) / "comm").read_text(errors="replace").strip()
        arguments = (PROC / str(own[1]) / "cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
    except OSError:
        return None
    return Ancestor(own[1], status[2], status[1], name, tuple(arguments))


def _status(pid: int) -> tuple[str, int, int] | None:
    """State letter, parent and start time of a process; None: there is none (proc(5): /proc/pid/stat)."""
    try:
        fields = (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], int(fields[1]), int(fields[19])


def _keep_output() -> None:
    """Where nobody reads standard output or error any more (the ssh session has gone), a line must not end the run unsaved."""
    for descriptor in (1, 2):
        poll = select.poll()
        poll.register(descriptor, 0)  # errors and hang-ups are always told
        if poll.poll(0):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, descriptor)
            os.close(nowhere)
