"""One writer at a time in a folder: a lock of the kernel on a disk, a file with a heartbeat in object storage."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from data_tools.places import Place, read_bytes, remove, write_atomic

LOCK = ".lock.json"  # in object storage
HEARTBEAT = 20.0  # seconds between two signs of life
STALE = 90.0  # seconds without one after which its holder is dead


@contextmanager
def exclusive(folder: Place, command: str) -> Iterator[None]:
    """Hold `folder` for `command`; the lock dies with the process.

    In object storage the lock is advice: two that start within the same second may both get it, and one that was killed elsewhere
    holds it for another `STALE` seconds.

    Raises:
        ValueError: another process holds it.
    """
    with _on_disk(folder, command) if isinstance(folder, Path) else _remote(folder, command):
        yield


@contextmanager
def _on_disk(folder: Path, command: str) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(
            f"{folder}: another `{command}` is at work here; wait for it, or give another output"
        ) from None
    else:
        yield
    finally:
        os.close(handle)


@contextmanager
def _remote(folder: Place, command: str) -> Iterator[None]:
    path, mine = folder / LOCK, uuid.uuid4().hex
    holder = _holder(path)
    if holder is not None:
        raise ValueError(
            f"{folder}: another `{command}` ({holder}) is at work here; wait for it (or {STALE:g} s, if it was killed), "
            "or give another output"
        )
    ended = threading.Event()

    def tell() -> None:
        told = {"host": socket.gethostname(), "pid": os.getpid(), "time": time.time(), "token": mine}
        write_atomic(path, json.dumps(told).encode())

    def beat() -> None:
        while not ended.wait(HEARTBEAT):
            with suppress(OSError):  # the next one may get through
                tell()

    tell()
    heart = threading.Thread(target=beat, daemon=True)
    heart.start()
    try:
        yield
    finally:
        ended.set()
        heart.join()
        with suppress(OSError, ValueError, KeyError):
            if json.loads(read_bytes(path))["token"] == mine:
                remove(path)


def _holder(path: Place) -> str | None:
    """Who holds the lock; None where nobody does, or somebody who is dead."""
    try:
        found = json.loads(read_bytes(path))
        host, pid, age = found["host"], int(found["pid"]), time.time() - float(found["time"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    if age > STALE or (host == socket.gethostname() and not Path(f"/proc/{pid}").exists()):
        return None
    return f"process {pid} of {host}, seen {age:.0f} s ago"
