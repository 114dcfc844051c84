"""A folder whose files never take more than so many bytes, whatever number of processes write to it: locks, accounts, eviction.

The file system is the account book. `NAME.tar` are whole files, last used at their mtime; `NAME.part` are being downloaded, and take
up their whole size from the start. Who uses one holds a lock on it (flock), which the kernel takes back when a process ends, however
it ends: EX on a part while it is downloaded, SH on a tar while it is open.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from data_tools.places import FULL, line

WHOLE, PART = ".tar", ".part"
NOT_RESERVED = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})  # this file system reserves no space


class NoRoomError(OSError):
    """The folder cannot take a file now: too small, the disk full, or not to be written."""


class File(NamedTuple):
    """A whole file: when it was last used (seconds since 1970), bytes, where."""

    used: float
    size: int
    path: Path


class Room:
    """The folder. May be used by several threads, and be pickled.

    Attributes:
        limit: bytes that all its files may have together.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit

    def open(self, name: str, size: int) -> int | None:
        """A file descriptor of a whole file, which is now the last to be evicted; None where it is not there."""
        path = self.folder / (name + WHOLE)
        with self._disk():
            try:
                file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return None
            try:
                fcntl.flock(file, fcntl.LOCK_SH)
                there = os.fstat(file)
                if there.st_nlink and there.st_size == size:
                    with suppress(OSError):  # read only: nothing is evicted there either
                        os.utime(file)
                    return file
                if there.st_nlink:
                    path.unlink(missing_ok=True)  # not what was written here
            except BaseException:
                os.close(file)
                raise
            os.close(file)
            return None

    def begin(self, name: str, wait: bool) -> int | None:
        """A file descriptor of a file to be written, which is this caller's alone.

        Returns:
            None: somebody else writes it, or did meanwhile; with `wait` that one has ended.
        """
        with self._disk():
            return self._locked(self.folder / (name + PART), wait)

    def reserve(self, name: str, part: int, size: int, evict_open: bool) -> None:
        """Make room for `size` bytes: files go, the longest unused first.

        Args:
            evict_open: also files that are open somewhere, if no others are left.
        Raises:
            NoRoomError: it is not enough.
        """
        with self._disk(), self._accounts():
            held = size + self._parts(other_than=name)
            files = sorted(self.files())
            held += sum(file.size for file in files)
            for even_open in (False, True)[: 1 + evict_open]:
                for file in list(files):
                    if held > self.limit and self._evict(file.path, even_open):
                        files.remove(file)
                        held -= file.size
            if held > self.limit:
                raise NoRoomError(f"{self.folder}: {self.limit / 1e9:g} GB, all in use")
            while True:
                try:
                    os.posix_fallocate(part, 0, size)
                    return
                except OSError as error:
                    if error.errno in NOT_RESERVED:
                        os.ftruncate(part, size)
                        return
                    if error.errno not in FULL or not self._evict_one():
                        raise

    def write(self, part: int, data: bytes, at: int) -> None:
        """Write to a file that was begun; on a full disk other files make way.

        Raises:
            NoRoomError: it stays full.
        """
        rest = memoryview(data)
        with self._disk():
            while rest:
                try:
                    done = os.pwrite(part, rest, at)
                    rest, at = rest[done:], at + done
                except OSError as error:
                    with self._accounts():
                        if error.errno not in FULL or not self._evict_one():
                            raise

    def finish(self, name: str, part: int) -> None:
        """A file that was written is whole: from now on it is found, and open (`part` is its descriptor)."""
        with self._disk():
            os.fsync(part)  # its name says that its bytes were checked: that must outlive the machine's power
            os.utime(part)
            (self.folder / (name + PART)).rename(self.folder / (name + WHOLE))
            fcntl.flock(part, fcntl.LOCK_SH)

    def give_up(self, name: str, part: int) -> None:
        """Remove a file that was begun."""
        with self._disk():
            try:
                (self.folder / (name + PART)).unlink(missing_ok=True)
            finally:
                fcntl.flock(part, fcntl.LOCK_UN)  # closing is not enough where a fork has copied the descriptor
                os.close(part)

    def files(self) -> Iterator[File]:
        """The whole ones, in any order."""
        for path in self.folder.glob(f"*{WHOLE}"):
            try:
                there = path.stat()
            except FileNotFoundError:
                continue
            yield File(there.st_mtime, there.st_size, path)

    @contextmanager
    def _disk(self) -> Iterator[None]:
        """Whatever the disk of the folder refuses, shards can be read without it."""
        try:
            yield
        except NoRoomError:
            raise
        except OSError as error:
            raise NoRoomError(f"{self.folder}: {line(error)}") from error

    def _locked(self, path: Path, wait: bool) -> int | None:
        """Make or open a file and lock it; None where another has the lock (without `wait`) or removed the file while we waited."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if os.path.samestat(os.fstat(file), path.stat()):
                return file
        except (BlockingIOError, FileNotFoundError):
            pass
        except BaseException:
            os.close(file)
            raise
        os.close(file)
        return None

    @contextmanager
    def _accounts(self) -> Iterator[None]:
        """One process at a time reserves and evicts. Nobody waits for another lock meanwhile."""
        file = None
        while file is None:
            file = self._locked(self.folder / "lock", wait=True)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)
            os.close(file)

    def _parts(self, other_than: str) -> int:
        """Bytes of what is being downloaded; what killed processes left is removed."""
        held = 0
        for path in self.folder.glob(f"*{PART}"):
            if path.stem == other_than:
                continue
            try:
                size = path.stat().st_size
            except FileNotFoundError:
                continue
            held += 0 if self._evict(path, even_open=False) else size
        return held

    def _evict(self, path: Path, even_open: bool) -> bool:
        """Remove a file; not one that a process holds, unless `even_open`: that one goes on reading, and its space is freed later."""
        try:
            if even_open:
                path.unlink()
                return True
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
            return True
        except BlockingIOError:
            return False
        finally:
            os.close(file)

    def _evict_one(self) -> bool:
        """The longest unused file that nobody has open."""
        return any(self._evict(file.path, even_open=False) for file in sorted(self.files()))
