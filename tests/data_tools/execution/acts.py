"""What the jobs of these tests do, by name; imported by the workers."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil


def act(job: str, beat: Callable[[int], None]) -> str:
    """`job` is a deed and what it needs; returns the latter and by which process."""
    kind, _, value = job.partition(" ")
    if kind in DEEDS:
        DEEDS[kind](value)
    elif kind == "slow":
        for _ in range(6):
            time.sleep(0.5)
            beat(10)
    elif kind == "endless":
        Path(value).touch()
        while True:
            time.sleep(0.1)
            beat(1)
    elif kind == "grow":
        held = fill(int(value))
        time.sleep(1)
        del held
    elif kind == "where":
        time.sleep(float(value))
        value = str(node())
    elif kind == "linger":
        doomed, file = value.split()
        if node() == int(doomed):
            Path(file).touch()
            time.sleep(600)
        time.sleep(0.3)
    elif kind == "environment":
        time.sleep(0.5)
        value = os.environ[value]
    elif kind == "raise":
        raise KeyError("a defect")
    elif kind == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "disk/file")
    elif kind == "missing":
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "gone")
    return f"{value} by {os.getpid()}"


def node() -> int:
    """The Ray node's process, which started the actor, which started this one."""
    return int(psutil.Process(os.getppid()).ppid())


def fill(size: int) -> bytearray:
    """So many MiB, each page touched."""
    held = bytearray(size << 20)
    held[::4096] = b"x" * len(held[::4096])
    return held


def croak(_: str) -> None:
    os.write(2, b"last words\n")
    os._exit(4)


def once(file: str, deed: Callable[[], None]) -> None:
    """Do it the first time only."""
    if not Path(file).exists():
        Path(file).write_text(str(os.getpid()))
        deed()


kept: list[bytearray] = []
DEEDS: dict[str, Callable[[str], object]] = {
    "segfault": lambda _: ctypes.string_at(0),
    "killed": lambda _: os.kill(os.getpid(), signal.SIGKILL),
    "exit": lambda _: os._exit(3),
    "hang": lambda _: time.sleep(600),
    "nap": lambda seconds: time.sleep(float(seconds.split()[0])),
    "hold": lambda _: ctypes.PyDLL(None).sleep(600),  # with the interpreter lock
    "mutter": lambda _: os.write(2, b"a warning\n"),
    "croak": croak,
    "leak": lambda size: kept.append(fill(int(size))),
    "orphan": lambda _: os.kill(os.getppid(), signal.SIGKILL),
    "orphan-once": lambda file: once(file, lambda: os.kill(os.getppid(), signal.SIGKILL)),
    "killed-once": lambda file: once(file, lambda: os.kill(os.getpid(), signal.SIGKILL)),
    "hang-once": lambda file: once(file, lambda: time.sleep(600)),
}
