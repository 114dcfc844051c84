"""Arrays as long as the data set: written in a stream and read in parts, so that no process ever holds one. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np

CHUNK = 1 << 17  # rows that are looked at together: 14 MB of the index


class ArrayFile:
    """A .npy file of one dimension that grows by appending."""

    def __init__(self, path: Path, dtype: np.dtype | type) -> None:
        self.path, self.dtype, self._length = path, np.dtype(dtype), 0
        self._file: IO[bytes] = path.open("wb")
        self._head()
        self._start = self._file.tell()

    def __len__(self) -> int:
        return self._length

    def append(self, values: np.ndarray) -> None:
        """Write more elements at the end."""
        self._file.write(np.ascontiguousarray(values, self.dtype).view(np.uint8).data)
        self._length += len(values)

    def close(self) -> None:
        """Say in the head how long it has become; safe to call twice."""
        if self._file.closed:
            return
        try:
            self._file.seek(0)
            self._head()
            assert self._file.tell() == self._start, "the head of a .npy file leaves room for its length to grow"
        finally:
            self._file.close()

    def _head(self) -> None:
        write_head(self._file, self.dtype, (self._length,))

    def __enter__(self) -> ArrayFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def write_head(file: IO[bytes], dtype: np.dtype, shape: tuple[int, ...], fortran_order: bool = False) -> None:
    """The head of a .npy file; the elements follow."""
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": fortran_order, "shape": shape}
    np.lib.format.write_array_header_1_0(file, described)


def mapped(path: Path) -> np.memmap:
    """A .npy file, read where it is touched."""
    array = np.load(path, mmap_mode="r")
    assert isinstance(array, np.memmap)
    return array


class Chunk:
    """The rows [start, stop) of a data set. What is asked of them is read, once: pages that are mapped would stay in memory."""

    def __init__(self, start: int, stop: int) -> None:
        self.start, self.stop = start, stop
        self._parts: dict[tuple[str, int], np.ndarray] = {}

    def __len__(self) -> int:
        return self.stop - self.start

    def of(self, array: np.memmap, column: int = 0) -> np.ndarray:
        """These rows of a mapped array, or of a column of one in Fortran's order."""
        key = (str(array.filename), column)
        if key not in self._parts:
            first = column * len(array) + self.start
            self._parts[key] = read_part(array, first, first + len(self))
        return self._parts[key]


def chunks(length: int) -> Iterator[Chunk]:
    """All rows, in parts that fit into memory."""
    return (Chunk(start, min(start + CHUNK, length)) for start in range(0, length, CHUNK))


def read_part(array: np.memmap, start: int, stop: int) -> np.ndarray:
    """Elements of a mapped array, in the order of the file, as a copy that leaves nothing mapped."""
    assert array.filename is not None
    offset = array.offset + start * array.dtype.itemsize
    found = np.fromfile(array.filename, array.dtype, stop - start, offset=offset)
    assert len(found) == stop - start, f"{array.filename} ends before element {stop}"
    return found
