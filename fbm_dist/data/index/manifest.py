"""The parquet manifests of a snapshot -> the fixed-width arrays of index.py: in a stream, a few shards in memory at a time."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_tools.dataset import Snapshot, digest_of
from data_tools.places import Place, is_local, line, read_bytes
from data_tools.shards import SCHEMA, ShardStats, finished_shard, shard_file
from fbm_dist.data.index.arrays import ArrayFile
from fbm_dist.data.index.columns import COLUMNS, KeyFile, LabelFiles, Names, Part, one
from fbm_dist.data.index.index import ROW, TAR, THREADS, Index

T = TypeVar("T")
U = TypeVar("U")
NAMES_KEPT = 10_000  # group names stored for error messages; the ids work without them
WORKERS = 4
GROUP = 8_000  # clips whose manifests are decoded together
TARS, ROWS, KEYS, LABELS = "tars.npy", "rows.npy", "keys.npy", "labels.npy"
COUNTS, FRAMES = "counts.npy", "frames.npy"  # of `write_ranked`


def write_arrays(root: Place, snapshot: Snapshot, folder: Path) -> dict[str, Any]:
    """Write rows.npy, keys.npy, labels.npy and tars.npy into `folder`.

    Returns:
        What the arrays' numbers stand for: `splits`, `groups`, `verdicts` and `labels` (label name -> class names, sorted).
    Raises:
        ValueError: the shards are not those of the snapshot, or a manifest cannot be read or holds another number of clips.
    """
    tars = _tars(root, snapshot)
    np.save(folder / TARS, tars)
    splits, verdicts = Names("splits", np.iinfo("i2").max), Names("reasons of verdicts", np.iinfo("i1").max)
    labels, groups = LabelFiles(folder, snapshot.clips), set[str]()
    tables = _manifests(root, zip(snapshot.shards, tars["clips"].tolist(), strict=True), COLUMNS, lambda table: table)
    with ArrayFile(folder / ROWS, ROW) as rows, KeyFile(folder / KEYS) as keys:
        number = 0
        for group in _together(tables):
            part = _decoded(group)
            part.rows["shard"] = np.repeat(np.arange(number, number + len(group)), [len(table) for _, table in group])
            part.rows["split"] = splits.numbers(part.splits)[part.rows["split"]]
            part.rows["verdict"] = verdicts.numbers(part.verdicts)[part.rows["verdict"]]
            labels.append(len(rows), part.labels)
            rows.append(part.rows)
            keys.append(part.keys)
            if len(groups) <= NAMES_KEPT:
                groups.update(part.groups)
            number += len(group)
    return {
        "splits": splits.names,
        "groups": sorted(groups) if len(groups) <= NAMES_KEPT else [],
        "verdicts": verdicts.names,
        "labels": labels.save(folder / LABELS),
    }


def write_ranked(index: Index, below: int, folder: Path) -> dict[str, Any]:
    """The frames whose place in the order in which frames of their shot are taken (`shot_rank`) is 0 .. below - 1.

    Writes counts.npy, int32: how many of each clip; and frames.npy, int32: each one's number within its stored clip, clip by clip.

    Raises:
        ValueError: a manifest cannot be read, or does not rank the frames of all its clips.
    """

    def taken(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        ranks = one(table["shot_rank"])
        lengths = pc.fill_null(pc.list_value_length(ranks), 0).to_numpy()
        unranked = int((lengths != table["num_frames"].to_numpy()).sum())
        if unranked:
            raise ValueError(
                f"the frames of {unranked} clips have no shot_rank, which data.clip.frames_per_shot goes by; "
                "prepare the data set anew, or leave data.clip.frames_per_shot out"
            )
        rank = ranks.flatten().to_numpy()
        chosen = np.flatnonzero((rank >= 0) & (rank < below))
        clip = np.repeat(np.arange(len(table)), lengths)[chosen]
        return np.bincount(clip, minlength=len(table)), chosen - (np.cumsum(lengths) - lengths)[clip]

    with ArrayFile(folder / COUNTS, np.int32) as counts, ArrayFile(folder / FRAMES, np.int32) as frames:
        for _, (number, frame) in shard_tables(index, ("num_frames", "shot_rank"), taken):
            counts.append(number)
            frames.append(frame)
    return {}


def shard_tables(index: Index, columns: Sequence[str], make: Callable[[pa.Table], T]) -> Iterator[tuple[Place, T]]:
    """What `make` makes of some columns of each manifest, in order: where the manifest is, and that. It is called in threads.

    Raises:
        ValueError: a manifest cannot be read or does not hold the clips of the index; or from `make`, and the text names the manifest.
    """
    names = (name.rpartition("/")[2].removesuffix(".tar") for name in index.shards)
    return _manifests(index.root, zip(names, index.tars["clips"].tolist(), strict=True), columns, make)


def _manifests(
    root: Place, shards: Iterable[tuple[str, int]], columns: Sequence[str], make: Callable[[pa.Table], T]
) -> Iterator[tuple[Place, T]]:
    """`shard_tables` for shards with these names and numbers of clips."""

    def load(shard: tuple[str, int]) -> tuple[Place, T]:
        path = shard_file(root, shard[0], "parquet")
        table = _read(path, columns)
        if len(table) != shard[1]:
            raise ValueError(f"{path}: {len(table)} clips, not {shard[1]}; see: python -m data_tools verify {root}")
        try:
            return path, make(table)
        except (ValueError, pa.ArrowException) as error:
            raise ValueError(f"{path}: {line(error)}") from None

    return _ahead(load, shards, _threads(root))


def _together(tables: Iterator[tuple[Place, pa.Table]]) -> Iterator[list[tuple[Place, pa.Table]]]:
    """Manifests in groups of some thousand clips: what is done once a group costs as much as what is done for each of 1,000 clips."""
    group: list[tuple[Place, pa.Table]] = []
    for path, table in tables:
        group.append((path, table))
        if sum(len(table) for _, table in group) >= GROUP:
            yield group
            group = []
    if group:
        yield group


def _decoded(group: Sequence[tuple[Place, pa.Table]]) -> Part:
    """Several manifests as one `Part`.

    Raises:
        ValueError: one of them says what cannot be; the text names it.
    """
    try:
        return Part.of(pa.concat_tables([table for _, table in group]).combine_chunks())
    except (ValueError, pa.ArrowException) as error:
        if len(group) == 1:
            raise ValueError(f"{group[0][0]}: {line(error)}") from None
        for one_of_them in group:
            _decoded([one_of_them])
        raise


def _read(path: Place, columns: Sequence[str]) -> pa.Table:
    """Columns of a manifest, each in one piece; all null where it was written before there was such a column."""
    wanted = pa.schema([SCHEMA.field(name) for name in columns])
    try:
        file = pq.ParquetFile(pa.BufferReader(read_bytes(path)))
        table = file.read(list(columns), use_threads=False)
        if not table.schema.equals(wanted):
            table = pa.table([_column(table, field) for field in wanted], schema=wanted)
        return table.combine_chunks()
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path}: cannot be read: {line(error)}") from None


def _column(table: pa.Table, field: pa.Field) -> pa.ChunkedArray | pa.Array:
    if field.name not in table.column_names:
        return pa.nulls(len(table), field.type)
    return table[field.name].cast(field.type)


def _tars(root: Place, snapshot: Snapshot) -> np.ndarray:
    """`TAR` of each shard, from the statistics beside it.

    Raises:
        ValueError: they are not those that the snapshot was made of.
    """
    tars = np.zeros(len(snapshot.shards), TAR)

    def read() -> Iterator[ShardStats]:
        for number, stats in enumerate(_ahead(partial(_stats, root), snapshot.shards, _threads(root))):
            tars[number] = (stats.clips, 0, stats.bytes, stats.sha256.encode())
            yield stats

    if digest_of(read()) != snapshot.digest or tars["clips"].sum() != snapshot.clips:
        raise ValueError(
            f"{root}: the shards differ from snapshot {snapshot.id}; see: python -m data_tools verify {root}"
        )
    tars["first"] = np.cumsum(tars["clips"]) - tars["clips"]
    return tars


def _stats(root: Place, name: str) -> ShardStats:
    try:
        found = finished_shard(root, name)
    except OSError as error:
        raise ValueError(f"{shard_file(root, name, 'stats.json')}: cannot be read: {line(error)}") from None
    if found is None:
        path = shard_file(root, name, "tar")
        state = "unfinished" if is_local(path) and path.is_file() else "missing"
        raise ValueError(f"{path}: {state}; see: python -m data_tools verify {root}")
    return found


def _threads(root: Place) -> int:
    """To read manifests with: from a disk it is work, much of it Python's, which more threads only hinder; from a network it is waiting."""
    return min(WORKERS, len(os.sched_getaffinity(0))) if is_local(root) else THREADS


def _ahead(call: Callable[[U], T], items: Iterable[U], threads: int) -> Iterator[T]:
    """`map` by threads, in order, with few results waiting: their number does not grow with that of the items."""
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(call, item))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
