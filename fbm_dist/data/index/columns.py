"""Columns of one shard's manifest as numpy, and what must be known of all shards: the numbers of names, the width of keys."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fbm_dist.data.index import arrays
from fbm_dist.data.index.arrays import ArrayFile, chunks, mapped, write_head
from fbm_dist.data.index.index import CODECS, MEMBERS, ROW

log = logging.getLogger("fbm_dist.data")

COLUMNS = (
    *("key", "members", "film", "span", "fps", "size", "num_frames", "codec", "group", "split", "labels"),
    *("mask_size", "verdict"),
)
CLASSES = 100_000  # values of a label; one with more of them (a title, a date) is no class
STEP = 8  # bytes by which keys become wider


@dataclass(frozen=True)
class Part:
    """What the manifest of one shard says. Numbers of names point into this shard's own names; -1: none.

    Attributes:
        rows: `ROW`; `shard` is for the caller to say.
        keys: bytes, of the width of the longest.
        splits, verdicts, groups: this shard's names.
        labels: label name -> (class number of each clip, the classes' names).
    """

    rows: np.ndarray
    keys: np.ndarray
    splits: list[str]
    verdicts: list[str]
    groups: list[str]
    labels: dict[str, tuple[np.ndarray, list[str]]]

    @staticmethod
    def of(table: pa.Table) -> Part:
        """Decode a manifest's `COLUMNS`.

        Raises:
            ValueError: it names a codec that is not known.
        """
        rows = np.zeros(len(table), ROW)
        _fill_members(rows, one(table["members"]))
        rows["frames"] = table["num_frames"].to_numpy()
        rows["start"] = _pairs(one(table["span"]))[0]
        rows["fps_numerator"], rows["fps_denominator"] = _pairs(one(table["fps"]))
        rows["height"], rows["width"] = _pairs(one(table["size"]))
        rows["mask_height"], rows["mask_width"] = _pairs(one(table["mask_size"]))
        rows["verdict"], verdicts = _first(one(table["verdict"]))
        codec, codecs = _coded(one(table["codec"]))
        unknown = sorted(set(codecs) - set(CODECS))
        if unknown:
            raise ValueError(f"codec {unknown[0]!r} is none of {', '.join(CODECS)}")
        rows["codec"] = np.array([CODECS.index(name) for name in codecs], np.uint8)[codec]
        rows["split"], splits = _coded(one(table["split"]))
        film, films = _coded(one(table["film"]))
        group, groups = _coded(one(table["group"]))
        ids = _ids(films)
        rows["film"] = ids[film]
        rows["group"] = (ids if groups == films else _ids(groups))[group]
        return Part(rows, fixed_width(one(table["key"])), splits, verdicts, groups, _labels(one(table["labels"])))


class Names:
    """Numbers for names in the order in which they are met."""

    def __init__(self, what: str, most: int) -> None:
        self._what, self._most = what, most
        self._numbers: dict[str, int] = {}

    @property
    def names(self) -> list[str]:
        """By number."""
        return list(self._numbers)

    def numbers(self, names: list[str]) -> np.ndarray:
        """Of each name, and -1 at the end: so that -1 points at -1.

        Raises:
            ValueError: there are too many.
        """
        found = [self._numbers.setdefault(name, len(self._numbers)) for name in names]
        if len(self._numbers) > self._most:
            raise ValueError(f"the data set has more than {self._most} {self._what}; prepare it with fewer")
        return np.array([*found, -1], np.int64)


class KeyFile:
    """keys.npy: grows by appending, and becomes wider where a longer key comes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = ArrayFile(path, np.dtype(f"S{STEP}"))

    def append(self, keys: np.ndarray) -> None:
        """Write more keys at the end."""
        width = keys.dtype.itemsize
        if width > self._file.dtype.itemsize:
            self._widen(-(-width // STEP) * STEP)
        self._file.append(keys)

    def _widen(self, width: int) -> None:
        """Copy what is there, in parts; as a rule nothing yet, for the keys of a data set are of one length."""
        self._file.close()
        narrow = self._path.with_suffix(".narrow")
        self._path.rename(narrow)
        before = mapped(narrow)
        self._file = ArrayFile(self._path, np.dtype(f"S{width}"))
        for chunk in chunks(len(before)):
            self._file.append(chunk.of(before))
        narrow.unlink()

    def __enter__(self) -> KeyFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


class LabelFiles:
    """labels.npy, a column for each label: which labels there are, and their classes, is known when all shards are read."""

    def __init__(self, folder: Path, clips: int) -> None:
        self._folder, self._clips = folder, clips
        self._classes: dict[str, dict[str, int]] = {}  # label -> class -> number, as they are met
        self._refused: set[str] = set()
        self._raw: dict[str, Path] = {}  # number + 1 of each clip as int32; what was not written (a hole) is 0: none

    def append(self, start: int, labels: dict[str, tuple[np.ndarray, list[str]]]) -> None:
        """Labels of the clips from row `start` on (`Part.labels`)."""
        for label, (numbers, names) in labels.items():
            if label in self._refused:
                continue
            classes = self._classes.setdefault(label, {})
            table = [classes.setdefault(name, len(classes) + 1) for name in names]
            if len(classes) > CLASSES:
                self._refuse(label)
                continue
            path = self._raw.setdefault(label, self._folder / f"label-{len(self._raw)}.raw")
            path.touch()
            with path.open("r+b") as file:
                file.seek(start * 4)
                file.write(np.array([*table, 0], np.int32)[numbers].data)

    def save(self, path: Path) -> dict[str, list[str]]:
        """Write the array, classes numbered in the order of their names; gives these names."""
        labels = sorted(self._classes)
        with path.open("wb") as file:
            write_head(file, np.dtype(np.int32), (self._clips, len(labels)), fortran_order=True)
            for label in labels:
                rank = {name: number for number, name in enumerate(sorted(self._classes[label]))}
                table = np.array([-1, *(rank[name] for name in self._classes[label])], np.int32)
                with self._raw[label].open("rb") as raw:
                    for start in range(0, self._clips, arrays.CHUNK):
                        count = min(arrays.CHUNK, self._clips - start)
                        met = np.fromfile(raw, np.int32, count)
                        file.write(table[np.pad(met, (0, count - len(met)))].data)
                self._raw[label].unlink()
        return {label: sorted(self._classes[label]) for label in labels}

    def _refuse(self, label: str) -> None:
        log.warning("label %r has more than %d values: it tells no classes, and is left out", label, CLASSES)
        self._refused.add(label)
        del self._classes[label]
        if label in self._raw:
            self._raw[label].unlink()


def one(column: pa.ChunkedArray) -> Any:
    """A column in one piece."""
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


def fixed_width(texts: pa.Array) -> np.ndarray:
    """ASCII texts as numpy's bytes of the width of the longest, padded with zeros."""
    width = max(1, pc.max(pc.binary_length(texts)).as_py() or 0)
    padded = pc.ascii_rpad(texts, width, "\0")
    wide = pa.types.is_large_string(padded.type)
    offsets = np.frombuffer(padded.buffers()[1], np.int64 if wide else np.int32)[padded.offset :]
    data = np.frombuffer(padded.buffers()[2] or b"", np.uint8)[int(offsets[0]) :] if len(padded) else np.zeros(0, "u1")
    return data[: len(padded) * width].view(f"S{width}")


def _fill_members(rows: np.ndarray, members: pa.ListArray) -> None:
    clip = pc.list_parent_indices(members).to_numpy()
    flat = members.flatten()
    offsets, sizes = flat.field("offset").to_numpy(), flat.field("size").to_numpy()
    extension, extensions = _coded(flat.field("extension"))
    for member, name in MEMBERS.items():
        if member in extensions:
            chosen = extension == extensions.index(member)
            rows[name][clip[chosen]] = offsets[chosen]
            rows[f"{name}_size"][clip[chosen]] = sizes[chosen]


def _labels(column: pa.MapArray) -> dict[str, tuple[np.ndarray, list[str]]]:
    """See `Part.labels`."""
    offsets = column.offsets.to_numpy()
    clip = np.repeat(np.arange(len(column)), np.diff(offsets))
    entries = slice(int(offsets[0]), int(offsets[-1]))
    name, names = _coded(column.keys[entries])
    found = {}
    for number, label in enumerate(names):
        chosen = np.flatnonzero(name == number)
        value, values = _coded(column.items[entries].take(pa.array(chosen)))
        numbers = np.full(len(column), -1, np.int64)
        numbers[clip[chosen]] = value
        found[label] = (numbers, values)
    return found


def _first(lists: pa.ListArray) -> tuple[np.ndarray, list[str]]:
    """The first element of each list of names as a number, -1 where it has none; and the names."""
    lengths = pc.list_value_length(lists).fill_null(0).to_numpy()
    flat, names = _coded(lists.flatten())
    found = np.full(len(lists), -1, np.int64)
    found[lengths > 0] = flat[(np.cumsum(lengths) - lengths)[lengths > 0]]
    return found, names


def _pairs(lists: pa.ListArray) -> np.ndarray:
    """(2, n): lists of two numbers; 0 where there is none."""
    values = lists.flatten().to_numpy().reshape(-1, 2)
    if not lists.null_count:
        return values.T
    found = np.zeros((len(lists), 2), values.dtype)
    found[lists.is_valid().to_numpy(zero_copy_only=False)] = values
    return found.T


def _coded(column: pa.Array) -> tuple[np.ndarray, list[str]]:
    """A number for each name, -1 where there is none; and the names by number."""
    coded = column.dictionary_encode()
    indices = coded.indices.fill_null(-1) if coded.null_count else coded.indices
    return indices.to_numpy(), coded.dictionary.to_pylist()


def _ids(names: list[str]) -> np.ndarray:
    """`index.name_id` of each."""
    hashed = b"".join([blake2b(name.encode(), digest_size=8).digest() for name in names])
    return (np.frombuffer(hashed, "<u8") >> np.uint64(1)).astype(np.int64)
