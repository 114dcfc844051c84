"""The parquet manifests of a snapshot -> the fixed-width arrays of index.py, one shard at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Int32, Int64

from data_tools.dataset import Snapshot
from data_tools.places import Place
from data_tools.shards import SCHEMA, shard_file
from fbm_dist.data.index.index import CODECS, MEMBERS, NAMES_KEPT, ROW, Index, name_id

COLUMNS = [
    "key",
    "members",
    "film",
    "span",
    "fps",
    "size",
    "num_frames",
    "codec",
    "group",
    "split",
    "labels",
    "mask_size",
    "verdict",
]


def write_arrays(root: Path, snapshot: Snapshot, folder: Path) -> dict[str, Any]:
    """Write rows.npy, keys.npy and labels.npy into `folder`.

    Returns:
        What the arrays' numbers stand for: `splits`, `groups`, `verdicts` and `labels` (label name -> class names), all sorted.
    Raises:
        ValueError: a manifest cannot be read or does not hold as many clips as the snapshot says.
    """
    rows = np.lib.format.open_memmap(folder / "rows.npy", mode="w+", dtype=ROW, shape=(snapshot.clips,))
    names = _Names()
    keys: list[np.ndarray] = []
    labels: list[tuple[int, dict[str, np.ndarray]]] = []
    done = 0
    for number, shard in enumerate(snapshot.shards):
        table = _read(shard_file(root, shard, "parquet"), COLUMNS)
        if done + len(table) > snapshot.clips:
            raise ValueError(
                f"{root}: the manifests hold more than the {snapshot.clips} clips of snapshot {snapshot.id}"
            )
        _fill(rows[done : done + len(table)], number, table, names)
        keys.append(np.array(table["key"].to_pylist(), dtype="S"))
        labels.append((done, _labels(table, names)))
        done += len(table)
    if done != snapshot.clips:
        raise ValueError(f"{root}: the manifests hold {done} clips, snapshot {snapshot.id} says {snapshot.clips}")
    for kind in ("split", "verdict"):
        rows[kind] = names.sorted_codes(kind, rows[kind])
    rows.flush()
    np.save(folder / "keys.npy", np.concatenate(keys))
    _save_labels(folder / "labels.npy", labels, names, snapshot.clips)
    groups = sorted(names.groups)
    return {
        "splits": names.sorted_names("split"),
        "groups": groups if len(groups) <= NAMES_KEPT else [],
        "verdicts": names.sorted_names("verdict"),
        "labels": {name: names.sorted_names(f"label {name}") for name in sorted(names.labels)},
    }


class RankedFrames(NamedTuple):
    """Single frames of clips, in the order of the data set."""

    row: Int64[np.ndarray, " n"]  # of the clip
    frame: Int32[np.ndarray, " n"]  # index within the stored clip


def ranked_frames(index: Index, below: int) -> RankedFrames:
    """The frames whose place in the order in which frames of their shot are taken (`shot_rank`) is 0 .. below - 1.

    Raises:
        ValueError: a manifest cannot be read, or does not rank the frames of all its clips.
    """
    found = []
    for path, start, table in shard_tables(index, ["num_frames", "shot_rank"]):
        ranks = _one(table["shot_rank"])
        lengths = pc.fill_null(pc.list_value_length(ranks), 0).to_numpy()
        unranked = int((lengths != table["num_frames"].to_numpy()).sum())
        if unranked:
            raise ValueError(
                f"{path}: the frames of {unranked} clips have no shot_rank, which data.clip.frames_per_shot goes by; "
                "prepare the data set anew, or leave data.clip.frames_per_shot out"
            )
        rank = ranks.flatten().to_numpy()
        taken = (rank >= 0) & (rank < below)
        first = np.repeat(np.cumsum(lengths) - lengths, lengths)
        row = np.repeat(np.arange(start, start + len(table), dtype=np.int64), lengths)
        found.append((row[taken], (np.arange(len(rank)) - first)[taken].astype(np.int32)))
    rows, frames = zip(*found, strict=True)
    return RankedFrames(np.concatenate(rows), np.concatenate(frames))


def shard_tables(index: Index, columns: Sequence[str]) -> Iterator[tuple[Path, int, pa.Table]]:
    """Some columns of the manifests, a shard at a time: where the manifest is, the row of its first clip, and what it says.

    Raises:
        ValueError: a manifest cannot be read or does not hold the clips of the index.
    """
    start = 0
    for name, clips in zip(index.shards, np.bincount(index.rows["shard"]).tolist(), strict=True):
        path = (index.root / name).with_suffix(".parquet")
        table = _read(path, columns)
        if len(table) != clips:
            raise ValueError(
                f"{path}: {len(table)} clips, the index has {clips}; see: python -m data_tools verify {index.root}"
            )
        yield path, start, table
        start += clips


class _Names:
    """Numbers for names in the order in which they are met; sorted once all are known."""

    def __init__(self) -> None:
        self.groups: set[str] = set()
        self.labels: set[str] = set()
        self._codes: dict[str, dict[str, int]] = {}

    def code(self, kind: str, name: str) -> int:
        codes = self._codes.setdefault(kind, {})
        return codes.setdefault(name, len(codes))

    def sorted_names(self, kind: str) -> list[str]:
        return sorted(self._codes.get(kind, {}))

    def sorted_codes(self, kind: str, met: np.ndarray) -> np.ndarray:
        """Numbers by first meeting -> numbers by sorted name; -1 stays."""
        codes = self._codes.get(kind, {})
        rank = {name: i for i, name in enumerate(sorted(codes))}
        order = np.array([*(rank[name] for name in codes), -1])
        return order[met]


def _read(path: Place, columns: Sequence[str]) -> pa.Table:
    """Columns of a manifest; all null where it was written before there was such a column."""
    try:
        return pq.read_table(str(path), columns=list(columns), schema=SCHEMA).combine_chunks()
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None


def _fill(rows: np.ndarray, shard: int, table: pa.Table, names: _Names) -> None:
    """One shard's rows."""
    rows["shard"] = shard
    members = _one(table["members"])
    parent = pc.list_parent_indices(members).to_numpy()
    flat = members.flatten()
    extension = np.array(flat.field("extension").to_pylist())
    for member, name in MEMBERS.items():
        chosen = extension == member
        rows[name][parent[chosen]] = flat.field("offset").to_numpy()[chosen]
        rows[f"{name}_size"][parent[chosen]] = flat.field("size").to_numpy()[chosen]
    rows["frames"] = table["num_frames"].to_numpy()
    rows["start"] = _element(table["span"], 0)
    rows["fps_numerator"], rows["fps_denominator"] = _element(table["fps"], 0), _element(table["fps"], 1)
    rows["height"], rows["width"] = _element(table["size"], 0), _element(table["size"], 1)
    rows["mask_height"], rows["mask_width"] = _element(table["mask_size"], 0), _element(table["mask_size"], 1)
    verdicts = [verdict[0] if verdict else None for verdict in table["verdict"].to_pylist()]
    rows["verdict"] = _by_name(pa.chunked_array([verdicts], pa.string()), lambda name: names.code("verdict", name))
    rows["codec"] = _by_name(table["codec"], CODECS.index)
    rows["film"] = _by_name(table["film"], name_id)
    rows["group"] = _by_name(table["group"], name_id)
    rows["split"] = _by_name(table["split"], lambda name: names.code("split", name))
    names.groups.update(pc.unique(table["group"]).to_pylist())


def _labels(table: pa.Table, names: _Names) -> dict[str, np.ndarray]:
    """Label name -> class numbers by first meeting, -1 where a clip has none."""
    column = _one(table["labels"])
    parent = np.repeat(np.arange(len(column)), np.diff(column.offsets.to_numpy()))
    found: dict[str, np.ndarray] = {}
    for clip, name, value in zip(parent, column.keys.to_pylist(), column.items.to_pylist(), strict=True):
        codes = found.setdefault(name, np.full(len(column), -1, np.int32))
        codes[clip] = names.code(f"label {name}", value)
        names.labels.add(name)
    return found


def _save_labels(path: Path, parts: list[tuple[int, dict[str, np.ndarray]]], names: _Names, clips: int) -> None:
    kinds = sorted(names.labels)
    table = np.full((clips, len(kinds)), -1, np.int32)
    for start, part in parts:
        for name, met in part.items():
            table[start : start + len(met), kinds.index(name)] = names.sorted_codes(f"label {name}", met)
    np.save(path, table)


def _one(column: pa.ChunkedArray) -> Any:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


def _element(column: pa.ChunkedArray, place: int) -> np.ndarray:
    """An element of a short list; 0 where there is no list."""
    return pc.fill_null(pc.list_element(column, place), 0).to_numpy()


def _by_name(column: pa.ChunkedArray, number: Any) -> np.ndarray:
    """`number(name)` for each row, computed once a name; -1 where there is none."""
    coded = _one(column.dictionary_encode())
    table = np.array([*(number(name) for name in coded.dictionary.to_pylist()), -1], np.int64)
    return table[pc.fill_null(coded.indices, len(table) - 1).to_numpy()]
