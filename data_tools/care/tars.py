"""A shard's tar as it really is, header by header, whatever stands in it: nothing is extracted, and one member is held at a time."""

from __future__ import annotations

import os
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from data_tools.places import CHUNK, Place, again
from data_tools.sample import KEY, ORDER
from data_tools.shards import BLOCK

LARGEST = 1 << 30  # bytes of a sample; 4096 frames of the largest settings stay well below
KINDS = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.DIRTYPE: "a folder",
    tarfile.FIFOTYPE: "a pipe",
}  # none of them has data behind its header
SHOWN = 80  # characters of a name in a message


class Member(NamedTuple):
    """One member of a tar."""

    name: str
    start: int  # of its header
    size: int  # bytes of data, which follow the header
    odd: str  # why it is no member of a sample; empty: it may be one

    @property
    def key(self) -> str:
        """The sample that it belongs to."""
        return self.name.partition(".")[0]

    @property
    def extension(self) -> str:
        """Which part of the sample it is."""
        return self.name.partition(".")[2]

    @property
    def offset(self) -> int:
        """Where its data begin."""
        return self.start + BLOCK

    @property
    def end(self) -> int:
        """Where the next header stands."""
        return self.offset + -(-self.size // BLOCK) * BLOCK


@contextmanager
def here(there: Place) -> Iterator[Path]:
    """A file of a data set as a file of this machine: itself, or a copy for as long as it is needed."""
    if isinstance(there, Path):
        yield there
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / there.name
        again(f"cannot read {there}", lambda: there.fs.get_file(there.path, str(copy)))
        yield copy


def walk(file: IO[bytes]) -> Iterator[Member]:
    """The members of a tar in order, odd ones included.

    Raises:
        ValueError: from some place on it is no tar, or it does not end as one.
    """
    length, at = os.fstat(file.fileno()).st_size, 0
    while (member := _member(file, at, length)) is not None:
        yield member
        at = member.end
    end = at + 2 * BLOCK
    wanted = end + -end % tarfile.RECORDSIZE
    if length < wanted:
        raise ValueError(f"is no whole tar: it ends at byte {length} without the two empty blocks of an end")
    while at < length:
        if os.pread(file.fileno(), CHUNK, at).strip(b"\0"):
            raise ValueError(f"holds something behind its end, at byte {at} or later")
        at += CHUNK
    if length > wanted:
        raise ValueError(f"is {length} bytes long; its members need {wanted}")


def stretches(file: IO[bytes]) -> Iterator[tuple[str, int, int]]:
    """(key, start, size) of everything in a tar that looks like a sample, whatever stands between."""
    length, at = os.fstat(file.fileno()).st_size, 0
    key, start = "", 0
    while at < length:
        try:
            member = _member(file, at, length)
        except ValueError:
            member = None
        whole = member is not None and not member.odd
        first = member is not None and whole and member.extension == ORDER[0]
        if key and (member is None or not whole or first or member.key != key):
            yield key, start, at - start
            key = ""
        if first and member is not None:
            key, start = member.key, at
        at = member.end if member is not None and whole else at + BLOCK  # an odd size may hide good samples
    if key:
        yield key, start, at - start


def shown(name: object) -> str:
    """A name from a stranger's file, for a message: one line, not too long."""
    text = repr(name)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 4]}...{text[0]}"


def _member(file: IO[bytes], at: int, length: int) -> Member | None:
    """The member whose header stands at `at`; None where there is an empty block or nothing.

    Raises:
        ValueError: something else stands there.
    """
    block = os.pread(file.fileno(), BLOCK, at)
    if not block.strip(b"\0"):
        return None
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise ValueError(f"is no whole tar: at byte {at}: {error}") from None
    size = 0 if info.type in KINDS else info.size
    member = Member(info.name, at, size, _odd(info))
    if info.size < 0 or member.end > length:
        raise ValueError(f"is no whole tar: {shown(info.name)} says it has {info.size} bytes, at byte {at} of {length}")
    return member


def _odd(info: tarfile.TarInfo) -> str:
    key, _, extension = info.name.partition(".")
    if info.type in KINDS:
        return f"is {KINDS[info.type]}"
    if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
        return f"is of type {info.type!r}, no plain file"
    if not KEY.fullmatch(key) or extension not in ORDER:
        return "is no name of a sample's member"
    if info.mtime or info.uid or info.gid or info.uname or info.gname or info.mode != 0o644:
        return "has a date, an owner or a mode that is not neutral"
    return ""
