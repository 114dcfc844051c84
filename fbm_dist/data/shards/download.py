"""The bytes of a file in object storage, in order, by several ranged requests that are under way at once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from itertools import islice
from typing import Any

from fsspec.asyn import AsyncFileSystem
from upath import UPath

from data_tools.places import again, line, size_of

PART = 8 << 20  # bytes of a request
STREAMS = 4  # requests under way; a single stream of an object store gives 50 to 100 MB/s


class ShardReadError(OSError):
    """A shard is not there, or does not hold what the data set says. One line that names it."""


class StoppedError(Exception):
    """A download was given up because it was asked to."""


def parts(there: UPath, size: int, stop: Future[None] | None = None) -> Iterator[bytes]:
    """The `size` bytes of a file, `PART` at a time.

    Args:
        stop: once it is done the download is given up, in the middle of a request; with it, nothing is tried twice.
    Raises:
        ShardReadError: no such file, or one of another size.
        OSError: the storage does not answer, or refuses.
        StoppedError: `stop` is done.
    """
    starts = iter(range(0, size, PART))
    asked: deque[tuple[int, Future[bytes]]] = deque()
    try:
        while True:
            for start in islice(starts, STREAMS - len(asked)):
                asked.append((start, _ask(there, start, min(start + PART, size))))
            if not asked:
                return
            start, request = asked[0]
            if stop is not None:
                either: tuple[Future[Any], ...] = (request, stop)
                wait(either, return_when=FIRST_COMPLETED)
                if stop.done():
                    raise StoppedError
            yield _received(there, start, min(start + PART, size), size, request, insist=stop is None)
            asked.popleft()
    finally:
        for _, request in asked:
            request.cancel()


def span(there: UPath, start: int, end: int, size: int) -> bytes:
    """The bytes start ... end - 1 of a file of `size` bytes.

    Raises:
        ShardReadError, OSError: as `parts`.
    """
    return _received(there, start, end, size, _ask(there, start, end), insist=True)


def _ask(there: UPath, start: int, end: int) -> Future[bytes]:
    """Ask for a range. Where fsspec has an event loop (S3, Google, Azure, web servers) the answer comes when it comes."""
    if isinstance(there.fs, AsyncFileSystem):
        return asyncio.run_coroutine_threadsafe(there.fs._cat_file(there.path, start=start, end=end), there.fs.loop)
    done: Future[bytes] = Future()
    try:
        done.set_result(there.fs.cat_file(there.path, start=start, end=end))
    except Exception as error:  # as in `again`: every store has exceptions of its own
        done.set_exception(error)
    return done


def _received(there: UPath, start: int, end: int, size: int, request: Future[bytes], insist: bool) -> bytes:
    """The answer to a request; where it failed and we `insist`, it is sent again with pauses."""
    try:
        data = request.result()
    except Exception as error:
        if not insist:
            raise OSError(f"cannot read {there}: {line(error)}") from error
        if not isinstance(error, FileNotFoundError):
            _check_size(there, size)  # now, not in the end: a range past the end of a file never succeeds
        try:
            data = again(f"cannot read {there}", lambda: _ask(there, start, end).result())
        except FileNotFoundError:
            raise ShardReadError(f"{there}: missing") from None
    if len(data) != end - start:
        _check_size(there, size)
        raise OSError(f"{there}: {len(data)} bytes came for a range of {end - start}; does that server know ranges?")
    return data


def _check_size(there: UPath, size: int) -> None:
    found = size_of(there)
    if found is not None and found != size:  # None is no proof: to fsspec, a web server that refuses has no such file
        raise ShardReadError(f"{there}: {found} bytes, not {size}")
