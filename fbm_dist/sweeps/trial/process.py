"""A trial's process as the worker sees it: start, look, stop; and what its end means."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from fbm_dist.sweeps.trial import attendant

STOPPED, HUNG = 75, 76  # exit codes of launch/pretrain.py after which the same command goes on
NO_NUMBER = "gradient not finite"  # in the error of a run that diverges (fbm_dist/training/faults/guard.py)
BUSY = ("EADDRINUSE", "address already in use", "database is locked")  # errors that another try may not meet
ERROR = re.compile(r"^(?:\[?rank\d+\]?:? ?)?(?:error: .+|[\w.]*(?:Error|Exception|Exit|Interrupt)\b.*)$")
TAIL = 65_536  # bytes of the log in which an error is looked for


@dataclass(frozen=True)
class End:
    """How a trial's process ended.

    Attributes:
        status: finished, diverged or failed; again: another try goes on from the checkpoint.
        reason: in one line.
    """

    status: str
    reason: str = ""


class Process:
    """One start of a trial's command below an attendant."""

    def __init__(self, command: list[str], folder: Path, environment: dict[str, str], grace: float) -> None:
        """Start it.

        Args:
            folder: the trial's; its log and its lock lie there.
            grace: seconds that it has to save itself when it is stopped.
        """
        self.log, self.grace = folder / "log.txt", grace
        self.offset = self.log.stat().st_size if self.log.exists() else 0
        self._heard = b""
        program = [sys.executable, attendant.__file__, str(folder / "running.lock"), str(self.log), str(grace)]
        self._attendant = subprocess.Popen(
            [*program, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )
        self._attendant.wait()  # the first of two generations

    def code(self, seconds: float = 0.0) -> int | None:
        """The exit code once all its processes are gone; None: they are at work after so many seconds."""
        assert self._attendant.stdout is not None, "it is a pipe"
        file = self._attendant.stdout.fileno()
        deadline = time.monotonic() + seconds
        while (found := re.search(rb"ended (\d+)\n", self._heard)) is None:
            ready, _, _ = select.select([file], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                return None
            data = os.read(file, 4096)
            if not data:  # the attendant itself was killed
                return 128 + signal.SIGKILL
            self._heard += data
        return int(found[1])

    def stop(self) -> int | None:
        """Ask it to save and end, and wait for that; its exit code."""
        assert self._attendant.stdin is not None, "it is a pipe"
        self._attendant.stdin.close()
        return self.code(2 * self.grace + 10)

    def close(self) -> None:
        """It has ended."""
        for pipe in (self._attendant.stdin, self._attendant.stdout):
            if pipe and not pipe.closed:
                pipe.close()

    def tail(self) -> str:
        """The end of what this start wrote into the log."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(self.offset, size - TAIL))
            return file.read().decode(errors="replace")


def judge(code: int, finished: bool, tail: str) -> End:
    """What the end of a process means for its trial.

    Args:
        code: its exit code; 128 + N for signal N.
        finished: the run has left its mark: a launcher that is killed ends with 0, too.
        tail: of its log.
    """
    if code == 0 and finished:
        return End("finished")
    reason = last_error(tail)
    if code in (0, STOPPED):
        return End("again", "its process was stopped from outside" if code else "its launcher was killed")
    if code == HUNG:
        return End("again", reason or "a rank hung")
    if code >= 128:
        name = signal.Signals(code - 128).name if code - 128 in set(signal.Signals) else str(code)
        memory = " (out of memory?)" if code - 128 == signal.SIGKILL else ""
        return End("again", f"its process was killed by {name}{memory}")
    if NO_NUMBER in reason:
        return End("diverged", reason)
    if any(word in tail for word in BUSY):
        return End("again", reason)
    return End("failed", reason or f"exit code {code}, see its log")


def last_error(tail: str) -> str:
    """The line that says why: the run's own last `error: ...`, else the last exception's."""
    lines = [line.strip() for line in tail.splitlines() if ERROR.match(line.strip())]
    own = [line for line in lines if "error: " in line]
    found = (own or lines or [""])[-1]
    return re.sub(r"^(\[?rank\d+\]?:? ?)?error: ", "", found)[:300]
