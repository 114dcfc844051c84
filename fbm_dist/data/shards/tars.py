"""The bytes of a shard's members, wherever the shards are: on a disk, or in object storage by way of a node's cache."""

from __future__ import annotations

import logging
import os
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from upath import UPath

from data_tools.places import Place, is_local, line
from fbm_dist.data.shards.cache import ShardCache
from fbm_dist.data.shards.download import ShardReadError, span
from fbm_dist.data.shards.room import NoRoomError

__all__ = ["ShardReadError", "Tars"]

log = logging.getLogger("fbm_dist.data")

OPEN_SHARDS = 256  # files a process holds open; the usual limit of a process is 1,024
OPEN_COPIES = 32  # of a cache: those that others may not evict first
LOOKED_AT = 8  # of them, at every shard that is opened: were they evicted, so that their space waits for us
PATIENCE = 30.0  # seconds without a download after the cache had no room
RANGED = -1  # in place of a file descriptor: this shard is read by ranges


class Tars:
    """The tars of a data set, open for reading. For one thread; may be pickled, and opens its files anew where it arrives.

    Attributes:
        root: the data set's folder.
    """

    def __init__(
        self, root: Place, names: Sequence[str], sizes: ArrayLike, sha256: ArrayLike, cache: ShardCache | None = None
    ) -> None:
        """
        Args:
            names: of the tars, relative to `root`.
            sizes: their bytes (int64).
            sha256: their hex digests (S64). Like `sizes`, only looked at where `root` is in object storage.
            cache: for shards in object storage; None reads every member by a request of its own.
        """
        self.root = root
        self._names = names
        self._sizes = np.asarray(sizes, np.int64)
        self._sha256 = np.asarray(sha256, "S64")
        self._cache = None if is_local(root) else cache
        self._most = OPEN_SHARDS
        if self._cache is not None and len(names):
            # what one process has open leaves half of the cache to others, and to what is fetched ahead
            self._most = max(1, min(OPEN_COPIES, self._cache.limit // 2 // max(1, int(self._sizes.max()))))
        self._files: OrderedDict[int, int] = OrderedDict()  # shard -> file descriptor, the last used at the end
        self._bad: dict[int, str] = {}  # shards in object storage that cannot be read, and why
        self._no_room_until = 0.0  # by time.monotonic
        self._told = False
        self._pid = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_files": OrderedDict(), "_no_room_until": 0.0}

    def read(self, shard: int, offset: int, size: int) -> bytes:
        """`size` bytes of a tar from `offset` on. The copies in a cache were checked by sha256; what is read by ranges is not.

        Raises:
            ShardReadError: the shard is not there, ends before, cannot be read, or (in object storage) has another sha256.
            OSError: object storage does not answer, or refuses.
        """
        file = self._files.get(shard)
        if file is None:
            file = self._open(shard)
        else:
            self._files.move_to_end(shard)
        if file == RANGED:
            data = self._range(shard, offset, size)
        else:
            try:
                data = os.pread(file, size, offset)
            except OSError as error:
                raise self._error(shard, line(error)) from None
        if len(data) != size or not size:
            raise self._error(shard, f"{len(data)} of {size} bytes at {offset}")
        return data

    @property
    def cache(self) -> ShardCache | None:
        """Where copies are kept; None where the shards are on a disk."""
        return self._cache

    def size(self, shard: int) -> int:
        """Bytes of a shard."""
        return int(self._sizes[shard])

    def bring(self, shard: int, stop: Future[None] | None = None) -> None:
        """Have a shard of object storage in the cache: `ShardCache.bring`. Other threads may do so too."""
        if self._cache is not None:
            self._cache.bring(self._there(shard), self._digest(shard), self.size(shard), stop)

    def close(self) -> None:
        """Close the files that this process opened."""
        while self._files:
            os.close(self._files.popitem()[1])

    def _open(self, shard: int) -> int:
        """A file descriptor of a shard or of its copy, kept for later; `RANGED` (not kept) where there is no room for a copy."""
        self._close_some()  # before the next one is opened, which may need the room
        file = self._opened(shard, self.root) if isinstance(self.root, Path) else self._copy(shard)
        if file != RANGED:
            self._files[shard] = file
        return file

    def _opened(self, shard: int, root: Path) -> int:
        try:
            return os.open(root / self._names[shard], os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise self._error(shard, line(error)) from None

    def _copy(self, shard: int) -> int:
        """A file descriptor of the copy of a shard in object storage, or `RANGED`."""
        if self._cache is None:
            return RANGED
        size, digest = self.size(shard), self._digest(shard)
        try:
            held = self._cache.held(digest, size)
            if held is not None:
                return held
            if time.monotonic() < self._no_room_until:
                return RANGED
            return self._fetched(shard, digest, size)
        except NoRoomError as error:
            if size <= self._cache.limit:  # a smaller one may fit
                self._no_room_until = time.monotonic() + PATIENCE
            if not self._told:
                self._told = True
                log.warning("%s; what is not there is read from object storage, clip by clip: slower", error)
            return RANGED

    def _fetched(self, shard: int, digest: str, size: int) -> int:
        assert self._cache is not None
        there = self._there(shard)
        with self._known_bad(shard):
            try:
                return self._cache.fetch(there, digest, size)
            except NoRoomError:
                if not self._files or size > self._cache.limit:
                    raise
                self.close()  # of what holds the room, some is held by us
                return self._cache.fetch(there, digest, size)

    def _range(self, shard: int, offset: int, size: int) -> bytes:
        with self._known_bad(shard):
            return span(self._there(shard), offset, offset + size, self.size(shard))

    @contextmanager
    def _known_bad(self, shard: int) -> Iterator[None]:
        """A shard of object storage that is not as it should be is asked for once, not for each of its clips."""
        if shard in self._bad:
            raise ShardReadError(self._bad[shard])
        try:
            yield
        except ShardReadError as error:
            self._bad[shard] = f"{error}; see: python -m data_tools verify {self.root}"
            raise ShardReadError(self._bad[shard]) from None

    def _close_some(self) -> None:
        """Close what was evicted, and the one that was not used for longest where no more may be open."""
        if self._cache is not None:
            for shard, file in list(islice(self._files.items(), LOOKED_AT)):
                if not os.fstat(file).st_nlink:
                    os.close(self._files.pop(shard))
        if len(self._files) >= self._most:
            os.close(self._files.popitem(last=False)[1])

    def _there(self, shard: int) -> UPath:
        """Where a shard is in object storage."""
        root = self.root
        assert isinstance(root, UPath)
        if self._pid != os.getpid():
            # a process was forked or this came to another: fsspec's clients belong to the process that made them
            self.root = root = UPath(str(root), **root.storage_options)
            self._pid = os.getpid()
        return root / self._names[shard]

    def _digest(self, shard: int) -> str:
        return bytes(self._sha256[shard]).decode()

    def _error(self, shard: int, reason: str) -> ShardReadError:
        return ShardReadError(f"{self._names[shard]}: {reason}")
