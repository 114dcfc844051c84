"""Keeps one trial's processes: starts the command, and sees to it that none of them outlives the sweep. Plain Python, run as a file.

    python attendant.py LOCK LOG GRACE COMMAND ...

Ray kills a worker's children with the worker, and a worker goes with its driver: what has a checkpoint to write must not be one of
them. So this process leaves the worker's family, and holds to it by two pipes alone. Standard input open: go on. A line, or its end
(the worker is gone, whatever the reason): stop. Standard output takes `started PID`, and `ended CODE` when all processes are gone.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # prctl(2)
TICK = 0.2  # seconds
SLACK = 5.0  # seconds that what its parent left behind may live on, where nobody asked for a stop


def main(lock: str, log: str, grace: str, *command: str) -> None:
    """Run the command to its end, or to the end of patience."""
    if os.fork():  # the worker's child ends here; what goes on is nobody's
        os._exit(0)
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it is ended through its pipe
    _prctl(PR_SET_CHILD_SUBREAPER, 1)  # orphans among the processes below become its children
    kept = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    if not _locked(kept):
        _say("ended 75")
        return
    with open(log, "ab", buffering=0) as output:  # noqa: PTH123  # no more imports than needed: it starts often
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, pass_fds=(kept,), preexec_fn=_ready
        )
    _say(f"started {child.pid}")
    code, asked = _wait(child, float(grace))
    _end_all(SLACK if not asked else float(grace))
    _say(f"ended {code if code >= 0 else 128 - code}")


def _ready() -> None:
    """In the child before its program: signals as a shell has them, an own group, and not to outlive this process."""
    os.setsid()
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)
    _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _locked(kept: int) -> bool:
    """Whether the trial is ours: processes of an earlier session may still be saving; False: we are not wanted any more."""
    while True:
        try:
            fcntl.flock(kept, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if _told(TICK):
                return False
        except OSError:  # a file system without locks
            return True


def _wait(child: subprocess.Popen[bytes], grace: float) -> tuple[int, bool]:
    """The child's exit code, and whether it was asked to stop."""
    while (code := child.poll()) is None:
        if _told(TICK):
            _signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                child.wait(grace)
            return (child.poll() if child.poll() is not None else -int(signal.SIGKILL)) or 0, True
    return code, False


def _told(seconds: float) -> bool:
    """Whether a stop is asked for within so many seconds."""
    readable, _, _ = select.select([0], [], [], seconds)
    return bool(readable)


def _end_all(patience: float) -> None:
    """Everything below this process ends: by itself, or by SIGTERM, or at last by SIGKILL."""
    deadline = time.monotonic() + patience
    told = False
    while below := _below():
        if not told:
            _signal(signal.SIGTERM)
            told = True
        if time.monotonic() > deadline:
            _signal(signal.SIGKILL)
        _reap()
        if below:
            time.sleep(TICK / 4)


def _signal(number: int) -> None:
    for pid in _below():
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _below() -> list[int]:
    """All living processes below this one (proc(5): /proc/pid/stat)."""
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:  # noqa: PTH123
                    fields = file.read().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] not in "ZX":
                parents[int(name)] = int(fields[1])
    found: list[int] = []
    fresh = {os.getpid()}
    while fresh := {pid for pid, parent in parents.items() if parent in fresh}:
        found += fresh
    return found


def _reap() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _say(text: str) -> None:
    with suppress(OSError):  # nobody listens any more
        os.write(1, f"{text}\n".encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
