"""Where the frames of an mp4 stand: its sample table, read without a demuxer. Imports no torch.

FFmpeg opens a container by decoding its first frames to learn their format, which costs as much as decoding three frames of a small
clip. The index of the data set knows the format; what is left is a table of offsets (ISO/IEC 14496-12, section 8).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

VISUAL_ENTRY = 78  # bytes of a VisualSampleEntry before its boxes
SETUP = {b"avcC"}  # boxes whose content a decoder has to be given first


@dataclass(frozen=True)
class SampleTable:
    """One video track.

    Attributes:
        offset, size: bytes of each frame within the file, in decoding order, which is the order in which they are shown.
        keys: frames that can be decoded without any before, ascending; the first is 0.
        setup: what the decoder is given before the first frame (H.264: avcC); empty where it needs nothing.
    """

    offset: tuple[int, ...]
    size: tuple[int, ...]
    keys: tuple[int, ...]
    setup: bytes


class ForeignLayoutError(ValueError):
    """An mp4 that this module does not read, though a demuxer may: fragments, several tracks, reordered frames."""


def sample_table(data: bytes) -> SampleTable:
    """The frames of the only track of an mp4 as `data_tools.videos.encode` writes it.

    Raises:
        ForeignLayoutError: it is laid out in another way, or it is damaged.
    """
    try:
        return _read(data)
    except (struct.error, KeyError, IndexError) as error:
        raise ForeignLayoutError(f"no plain mp4: {type(error).__name__}: {error}") from None


def _read(data: bytes) -> SampleTable:
    movie = _children(data, *_children(data, 0, len(data))[b"moov"][0])
    if len(movie[b"trak"]) != 1 or b"mvex" in movie:
        raise ForeignLayoutError("it has several tracks or fragments")
    media = _children(data, *_children(data, *movie[b"trak"][0])[b"mdia"][0])
    table = {name: found[0] for name, found in _children(data, *_descend(data, media, b"minf", b"stbl")).items()}
    if b"ctts" in table:
        raise ForeignLayoutError("its frames are reordered")
    size = _sizes(data, *table[b"stsz"])
    offset = _offsets(data, size, table)
    end = len(data)
    if not size or min(size) <= 0 or any(start + length > end for start, length in zip(offset, size, strict=True)):
        raise ForeignLayoutError("it holds no frames, or frames beyond its end")
    keys = tuple(number - 1 for number in _integers(data, *table[b"stss"])) if b"stss" in table else range(len(size))
    if not keys or keys[0] != 0 or list(keys) != sorted(set(keys)) or keys[-1] >= len(size):
        raise ForeignLayoutError("it does not begin with a key frame, or they are out of order")
    return SampleTable(tuple(offset), size, tuple(keys), _setup(data, *table[b"stsd"]))


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of the content of each box in a stretch."""
    while start < end:
        length, name = struct.unpack_from(">I4s", data, start)
        header = 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, start + 8)
            header = 16
        elif length == 0:
            length = end - start
        if length < header or start + length > end:
            raise ForeignLayoutError(f"box {name!r} at {start} ends beyond what holds it")
        yield name, start + header, start + length
        start += length


def _children(data: bytes, start: int, end: int) -> dict[bytes, list[tuple[int, int]]]:
    found: dict[bytes, list[tuple[int, int]]] = {}
    for name, first, last in _boxes(data, start, end):
        found.setdefault(name, []).append((first, last))
    return found


def _descend(data: bytes, boxes: dict[bytes, list[tuple[int, int]]], *names: bytes) -> tuple[int, int]:
    for name in names[:-1]:
        boxes = _children(data, *boxes[name][0])
    return boxes[names[-1]][0]


def _integers(data: bytes, start: int, end: int, width: int = 1) -> tuple[int, ...]:
    """32-bit numbers of a box that holds version and flags, a count, and `width` numbers for each."""
    (count,) = struct.unpack_from(">I", data, start + 4)
    return struct.unpack_from(f">{count * width}I", data, start + 8)


def _sizes(data: bytes, start: int, end: int) -> tuple[int, ...]:
    common, count = struct.unpack_from(">II", data, start + 4)
    if common:
        if common * count > len(data):
            raise ForeignLayoutError("frames beyond its end")
        return (common,) * count
    return struct.unpack_from(f">{count}I", data, start + 12)


def _offsets(data: bytes, size: tuple[int, ...], table: dict[bytes, tuple[int, int]]) -> list[int]:
    """Frames stand in chunks; a run of chunks has the same number of frames in each."""
    if b"co64" in table:
        start = table[b"co64"][0]
        (count,) = struct.unpack_from(">I", data, start + 4)
        chunks = struct.unpack_from(f">{count}Q", data, start + 8)
    else:
        chunks = _integers(data, *table[b"stco"])
    runs = _integers(data, *table[b"stsc"], width=3)
    firsts = [*runs[::3], len(chunks) + 1]
    found: list[int] = []
    for run, held in enumerate(runs[1::3]):
        for chunk in range(firsts[run] - 1, firsts[run + 1] - 1):
            place = chunks[chunk]
            for length in size[len(found) : len(found) + held]:
                found.append(place)
                place += length
    if len(found) != len(size):
        raise ForeignLayoutError(f"{len(found)} of {len(size)} frames stand in chunks")
    return found


def _setup(data: bytes, start: int, end: int) -> bytes:
    (count,) = struct.unpack_from(">I", data, start + 4)
    entries = list(_boxes(data, start + 8, end))
    if count != 1 or len(entries) != 1:
        raise ForeignLayoutError("its format changes")
    _, first, last = entries[0]
    for name, begin, finish in _boxes(data, first + VISUAL_ENTRY, last):
        if name in SETUP:
            return data[begin:finish]
    return b""
