"""Copies of shards from object storage on a disk of this node: checked, bounded, shared by all its ranks, readers and runs."""

from __future__ import annotations

import hashlib
import os
import shutil
from concurrent.futures import Future
from pathlib import Path

from upath import UPath

from fbm_dist.data.index.cache import cache_folder
from fbm_dist.data.shards.download import ShardReadError, parts
from fbm_dist.data.shards.room import NoRoomError, Room

LARGEST = 200 * 10**9  # bytes of a cache whose limit nobody chose
ATTEMPTS = 2  # downloads of a shard whose bytes are not the right ones


class ShardCache:
    """A folder with one file for each shard, named by its sha256. May be used by several threads, and be pickled.

    Attributes:
        folder: of this node. A disk of its own is best; a network file system must know flock.
        limit: bytes that its files may have together, those under way included. Shards that somebody has open are the last to go, and
            free their space when they are closed.
    """

    def __init__(self, folder: Path | None = None, limit: int | None = None) -> None:
        """
        Args:
            folder: "shards" in the cache folder of this node if None.
            limit: half of what its disk has left for it, and 200 GB at most, if None.
        Raises:
            ValueError: the folder cannot be made.
        """
        self.folder = folder or cache_folder() / "shards"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.limit = limit or _usual_limit(self.folder)
        except OSError as error:
            raise ValueError(f"{self.folder}: {error.strerror}; set FBM_CACHE to a folder of this machine") from None
        self._room = Room(self.folder, self.limit)

    def held(self, sha256: str, size: int) -> int | None:
        """A file descriptor of a shard that is there, and is now the last to be evicted; else None. The caller closes it.

        Raises:
            NoRoomError: the folder cannot be read.
        """
        return self._room.open(sha256, size)

    def fetch(self, there: UPath, sha256: str, size: int) -> int:
        """A file descriptor of the copy of a shard, downloaded where it is not there. The caller closes it.

        One process downloads a shard, others that want it wait. The copy stays as long as it is open, even where it is evicted.

        Raises:
            NoRoomError: the folder cannot take it: too small, the disk full or not to be written.
            ShardReadError: no such shard, or not the bytes that the data set says.
            OSError: the storage does not answer, or refuses.
        """
        while True:
            if (file := self.held(sha256, size)) is not None:
                return file
            if (file := self._download(there, sha256, size, wait=True)) is not None:
                return file

    def bring(self, there: UPath, sha256: str, size: int, stop: Future[None] | None = None) -> None:
        """Have a copy of a shard in the folder, if nobody else is downloading it, and without the place of shards that are open.

        Args:
            stop: once it is done the download is given up.
        Raises:
            StoppedError: it was; else as `fetch`, at once.
        """
        file = self.held(sha256, size)
        if file is None:
            file = self._download(there, sha256, size, wait=False, stop=stop)
        if file is not None:
            os.close(file)

    def _download(
        self, there: UPath, sha256: str, size: int, wait: bool, stop: Future[None] | None = None
    ) -> int | None:
        """The copy, downloaded by this process; None where another downloads it, or did until now."""
        if size > self.limit:
            raise NoRoomError(f"{self.folder}: {self.limit / 1e9:g} GB do not hold a shard of {size / 1e9:g} GB")
        part = self._room.begin(sha256, wait)
        if part is None:
            return None
        try:
            found = self._room.open(sha256, size)  # finished before we had the lock
            if found is None:
                self._room.reserve(sha256, part, size, evict_open=wait)
                self._fill(part, there, sha256, size, stop)
                self._room.finish(sha256, part)
                return part
        except BaseException:
            self._room.give_up(sha256, part)
            raise
        self._room.give_up(sha256, part)
        return found

    def _fill(self, part: int, there: UPath, sha256: str, size: int, stop: Future[None] | None) -> None:
        """Download a shard into a file that was begun."""
        for _ in range(ATTEMPTS):
            digest, at = hashlib.sha256(), 0
            for data in parts(there, size, stop):
                digest.update(data)
                self._room.write(part, data, at)
                at += len(data)
            if digest.hexdigest() == sha256:
                return
        raise ShardReadError(f"{there}: not the bytes of the data set (sha256), in {ATTEMPTS} downloads")


def _usual_limit(folder: Path) -> int:
    """Half of what the disk has left for the folder: what it holds now is not lost to it."""
    held = sum(file.size for file in Room(folder, 0).files())
    return min(LARGEST, (shutil.disk_usage(folder).free + held) // 2)
