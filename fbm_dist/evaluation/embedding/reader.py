"""The parquet files of an embedding, read: as a pyarrow data set, a batch at a time, or single rows; never all features at once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from jaxtyping import Float32

from data_tools.places import line

FOLDER = "embeddings"  # within the output folder
NAME = "part-{:05d}.parquet"
ABOUT = b"fbm_dist.embedding"  # the schema's metadata under this name: JSON, what made the file
LOST = b"fbm_dist.lost"  # and under this one: JSON, keys of the file's clips that could not be decoded and have no row
FORMAT = 1  # of the files
ALL = "all"
BATCH = 4096  # clips whose features are in memory together


@dataclass(frozen=True)
class Embeddings:
    """The finished files of one embedding.

    Attributes:
        paths: in reading order.
        about: what made them: encoder, sha256, data, digest, snapshot, clips, part_clips, precision, groups {name: length} ...
    """

    paths: tuple[Path, ...]
    about: dict[str, Any]

    @property
    def groups(self) -> dict[str, int]:
        """Length of each group of features, by name."""
        return dict(self.about["groups"])

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Clips of each file. Clips that could not be decoded are in none."""
        return tuple(pq.read_metadata(path).num_rows for path in self.paths)

    @cached_property
    def lost(self) -> tuple[str, ...]:
        """Keys of the clips that could not be decoded, in reading order."""
        return tuple(key for path in self.paths for key in read_lost(path))

    def __len__(self) -> int:
        return sum(self.sizes)

    def dataset(self) -> ds.FileSystemDataset:
        """All files as one table that is read where it is asked for."""
        return ds.dataset([str(path) for path in self.paths], format="parquet")

    def batches(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """These columns of every clip, at most `BATCH` clips at a time, in reading order."""
        for path in self.paths:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(BATCH, columns=list(columns), use_threads=False):
                    yield pa.Table.from_batches([batch])

    def take(self, rows: np.ndarray, columns: Sequence[str]) -> pa.Table:
        """These columns of some clips: `rows` are ascending places in the reading order. Files without one of them stay closed."""
        found, ends = [], np.cumsum(self.sizes)
        for path, start, stop in zip(self.paths, ends - self.sizes, ends, strict=True):
            first, last = np.searchsorted(rows, [start, stop])
            if first < last:
                found.append(_rows(path, rows[first:last] - start, columns))
        return pa.concat_tables(found)


def open_embeddings(folder: str | Path) -> Embeddings:
    """The files in an evaluation's output folder, or in its folder `embeddings`.

    Raises:
        ValueError: there are none, some are missing, or one cannot be read.
    """
    folder = Path(folder)
    inner = folder / FOLDER if (folder / FOLDER).is_dir() else folder
    there = {path.name: path for path in inner.glob("part-*.parquet")}
    if not there:
        raise ValueError(f"{folder}: no embeddings here; make them with configs/evaluate/embed.yaml output={folder}")
    about = read_about(min(there.values()))
    names = [NAME.format(number) for number in range(number_of_parts(about["clips"], about["part_clips"]))]
    missing = [name for name in names if name not in there]
    if missing:
        raise ValueError(
            f"{inner}: {len(missing)} of {len(names)} parts are missing ({missing[0]} is the first); "
            "run the same evaluation again, it makes only those"
        )
    return Embeddings(tuple(there[name] for name in names), about)


def number_of_parts(clips: int, part_clips: int) -> int:
    """Files that so many clips of a data set need."""
    return -(-clips // part_clips)


def read_about(path: Path) -> dict[str, Any]:
    """What made a file.

    Raises:
        ValueError: it is no file of an embedding, or one of a format that this version does not know.
    """
    about: dict[str, Any] = _metadata(path, ABOUT)
    if about.get("format") != FORMAT:
        raise ValueError(
            f"{path}: is of format {about.get('format')}, and this version reads and writes format {FORMAT}; "
            "use the version that made it, or give another output"
        )
    return about


def read_lost(path: Path) -> list[str]:
    """Keys of a file's clips that could not be decoded.

    Raises:
        ValueError: it is no file of an embedding.
    """
    keys: list[str] = _metadata(path, LOST)
    return keys


def features(table: pa.Table | pa.RecordBatch, group: str) -> Float32[np.ndarray, "n d"]:
    """A column of features as an array; of "all" where there is no such column: the columns of features side by side."""
    if group in table.schema.names:
        column = table.column(group)
        column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        flat = column.flatten().to_numpy(zero_copy_only=False)
        return flat.reshape(len(column), column.type.list_size).astype(np.float32, copy=False)
    if group != ALL:
        raise ValueError(f"there are no features {group!r}; these are there: {', '.join(feature_columns(table))}")
    return np.concatenate([features(table, name) for name in feature_columns(table)], axis=1)


def feature_columns(table: pa.Table | pa.RecordBatch) -> list[str]:
    """Names of the columns that hold features."""
    return [field.name for field in table.schema if pa.types.is_fixed_size_list(field.type)]


def _metadata(path: Path, name: bytes) -> Any:
    try:
        return json.loads((pq.read_schema(path).metadata or {})[name])
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        raise ValueError(
            f"{path}: not a file of an embedding ({line(error)}); remove it, or give another output"
        ) from None


def _rows(path: Path, rows: np.ndarray, columns: Sequence[str]) -> pa.Table:
    found, start = [], 0
    with pq.ParquetFile(path) as file:
        for number in range(file.num_row_groups):
            stop = start + file.metadata.row_group(number).num_rows
            first, last = np.searchsorted(rows, [start, stop])
            if first < last:
                found.append(
                    file.read_row_group(number, list(columns), use_threads=False).take(rows[first:last] - start)
                )
            start = stop
    return pa.concat_tables(found)
