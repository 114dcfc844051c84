"""Data sets of millions of clips that cost little disk: one real shard under many names, each with a manifest of its own."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from hashlib import blake2b, sha256
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_tools.dataset import commit_snapshot
from data_tools.places import write_atomic
from data_tools.prune import statistics
from data_tools.sample import Sample
from data_tools.shards import FOLDER, ShardStats, read_table, shard_file, to_json, write_shard
from tests.datasets import make_sample

DISTINCT = 8  # clips that are really encoded
LINKS = 10_000  # names of one file: file systems allow some 60,000
CLIPS_PER_FILM = 4
SPLITS = ("train", "train", "train", "val", "test")


def write_big(
    root: Path, clips: int, clips_per_shard: int = 1000, frames: int = 20, size: tuple[int, int] = (128, 144)
) -> Path:
    """Make a prepared data set of `clips` clips at `root` that the index and the loader read like any other.

    Every shard's tar holds the same clips: 8 that are really encoded (VP9, with soft masks), repeated. Its manifest gives them keys,
    films (4 clips each), groups, splits and labels (motion: left, right; object: 50 names, missing for some) of its own. What only
    `python -m data_tools verify` looks at, the keys within the tars, is not kept up.

    Args:
        clips: a multiple of `clips_per_shard`.
        frames, size: of the stored clips; size is (height, width) in pixels.
    Returns:
        `root`.
    """
    if clips % clips_per_shard:
        raise ValueError(f"{clips} clips are no whole number of shards of {clips_per_shard}")
    few = [_judged(make_sample(i, frames, size, (), "vp9", False, True, 0, 2)) for i in range(DISTINCT)]
    first = _name(0)
    stats = write_shard(root, first, [replace(few[i % DISTINCT], key=f"clip-{i:020d}") for i in range(clips_per_shard)])
    table = read_table(root, first)
    names = [_name(number) for number in range(clips // clips_per_shard)]
    for number, name in enumerate(names):
        for kind in ("tar", "idx"):
            _link(root, names[number - number % LINKS], name, kind)
        _write_manifest(root, name, number, table, stats)
    commit_snapshot(root, {"made_by": "benchmarks/big_index.py"}, names)
    return root


def _judged(sample: Sample) -> Sample:
    """With the statistics of its mask, which `data.filter.rules` goes by."""
    assert sample.mask is not None
    return replace(sample, metadata=sample.metadata.model_copy(update={"statistics": statistics(sample.mask)}))


def _name(number: int) -> str:
    return f"{number:06d}"


def _link(root: Path, origin: str, name: str, kind: str) -> None:
    """One more name for a file, or one more file where it has so many."""
    first, there = root / FOLDER / f"{origin}.{kind}", root / FOLDER / f"{name}.{kind}"
    if there.exists():
        return
    if origin == name:
        shutil.copyfile(root / FOLDER / f"{_name(0)}.{kind}", there)
    else:
        os.link(first, there)


def _write_manifest(root: Path, name: str, shard: int, table: pa.Table, stats: ShardStats) -> None:
    """The first shard's manifest with what differs between clips and shards, and statistics that vouch for it."""
    start = shard * len(table)
    numbers = range(start, start + len(table))
    films = [number // CLIPS_PER_FILM for number in numbers]
    changed = {
        "key": [blake2b(str(number).encode(), digest_size=16).hexdigest() for number in numbers],
        "shard": [name] * len(table),
        "film": [f"film-{film:09d}" for film in films],
        "group": [f"person-{film // 3:09d}" for film in films],
        "split": [SPLITS[film % 5] for film in films],
        "labels": [
            [("motion", ("left", "right")[number % 2])]
            + ([("object", f"thing-{number % 50:02d}")] if number % 7 < 6 else [])
            for number in numbers
        ],
    }
    for column, values in changed.items():
        place = table.column_names.index(column)
        table = table.set_column(place, table.schema.field(place), pa.array(values, table.schema.field(place).type))
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd")
    manifest = buffer.getvalue().to_pybytes()
    write_atomic(shard_file(root, name, "parquet"), manifest, durable=False)
    told = stats.model_copy(
        update={"name": name, "films": len(set(films)), "parquet_sha256": sha256(manifest).hexdigest()}
    )
    write_atomic(shard_file(root, name, "stats.json"), to_json(told), durable=False)
