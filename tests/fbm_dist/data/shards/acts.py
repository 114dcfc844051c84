"""What the other processes of these tests do; imported by them."""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from fbm_dist.data.shards import download
from fbm_dist.data.shards.tars import Tars

TIMEOUT = 60.0


def read(tars: Tars, wanted: Sequence[tuple[int, int, int]], arrived: Path | None = None) -> list[bytes]:
    """The bytes of (shard, offset, size); `arrived` is made when all is ready to begin."""
    if arrived is not None:
        arrived.touch()
    try:
        return [tars.read(*member) for member in wanted]
    finally:
        tars.close()


def read_in_parts(tars: Tars, wanted: Sequence[tuple[int, int, int]], part: int) -> None:
    """Likewise, downloading so many bytes at a time, one after the other."""
    download.PART, download.STREAMS = part, 1
    read(tars, wanted)


def wait_for(condition: Callable[[], object]) -> None:
    """Until it returns something true."""
    end = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def open_files(pattern: str) -> list[str]:
    """What this process has open whose path matches; a file that has no name any more ends with " (deleted)"."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(link.readlink()))
        except FileNotFoundError:  # closed in this moment
            continue
    return fnmatch.filter(found, pattern)
