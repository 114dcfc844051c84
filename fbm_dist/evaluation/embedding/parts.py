"""Every clip's features into parquet files: each a fixed stretch of the reading order, written whole or not at all."""

from __future__ import annotations

import json
import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from data_tools.places import atomic, sweep_unfinished
from data_tools.shards import SCHEMA, read_table
from fbm_dist.clip import Clip
from fbm_dist.data.index.index import Index
from fbm_dist.data.loader import read_placed
from fbm_dist.data.opened import OpenedData
from fbm_dist.data.order.stretches import Stretches
from fbm_dist.evaluation.embedding.reader import ABOUT, BATCH, LOST, NAME, number_of_parts, read_about, read_lost
from fbm_dist.objectives.objective import Encoder
from fbm_dist.training.distributed import World

log = logging.getLogger("fbm_dist.evaluation")

_TEXTS = SCHEMA.field("labels").type
KNOWN = (  # of each clip, beside its features
    ("key", pa.string()),
    ("film", pa.string()),
    ("source", pa.string()),  # path of the film in the input of `prepare`
    ("shot", pa.int32()),
    ("start", pa.int64()),  # the stored clip: frames [start, stop) of the film
    ("stop", pa.int64()),
    ("seen_start", pa.int64()),  # the frames that the encoder saw are within [seen_start, seen_stop)
    ("seen_stop", pa.int64()),
    ("fps", pa.float32()),
    ("group", pa.string()),
    ("split", pa.string()),
    ("labels", _TEXTS),
    ("licence", pa.string()),
    ("attribution", pa.string()),
    ("shard", pa.string()),
)
COPIED = ("key", "film", "source", "shot", "group", "split", "labels", "licence", "attribution", "shard")
# what must not differ between two runs into one folder: key -> how it is told
PINNED = {"sha256": "encoder", "part_clips": "part_clips", "precision": "precision"}
LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Job:
    """What is embedded, and where to.

    Attributes:
        folder: of the files.
        opened: the clips, read as the encoder needs them.
        about: what identifies the files; it stands in each of them.
    """

    folder: Path
    opened: OpenedData
    encoder: Encoder
    name: str
    batch: int
    about: dict[str, Any]

    @property
    def number(self) -> int:
        """Files there will be."""
        return number_of_parts(len(self.opened), self.about["part_clips"])

    def stretch(self, part: int) -> tuple[int, int]:
        """The clips [start, stop) of a file, before those that cannot be decoded are left out."""
        size = self.about["part_clips"]
        return part * size, min((part + 1) * size, len(self.opened))

    @property
    def schema(self) -> pa.Schema:
        """Of each file."""
        kind = pa.float16() if self.about["precision"] == "float16" else pa.float32()
        groups = [(name, pa.list_(kind, length)) for name, length in self.about["groups"].items()]
        return pa.schema([*KNOWN, *groups], {ABOUT: json.dumps(self.about | {"decoder": self.opened.decoder}).encode()})


def missing_parts(job: Job, retry: bool) -> tuple[list[int], str | None]:
    """The files that are still to be made, and the decoder that those that are there were read with.

    What a process that was killed left unfinished is removed.

    Args:
        retry: those too that lack clips which could not be decoded: their shards may have been repaired. They stay until the new
            ones replace them.
    Raises:
        ValueError: the folder holds files of another encoder, data set or setting; the text says which.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    sweep_unfinished(job.folder)
    decoder: str | None = None
    done = set[str]()
    for path in sorted(job.folder.glob("part-*.parquet")):
        there = read_about(path)
        _check(job, there)
        decoder = there.get("decoder")
        if not (retry and read_lost(path)):
            done.add(path.name)
    return [part for part in range(job.number) if NAME.format(part) not in done], decoder


def share(parts: Sequence[int], rank: int, world_size: int) -> Sequence[int]:
    """One process's share, neighbours together: a shard that has to be brought from afar is needed by one process."""
    first, last = (len(parts) * r // world_size for r in (rank, rank + 1))
    return parts[first:last]


@torch.inference_mode()
def write_parts(job: Job, parts: Sequence[int], world: World) -> int:
    """Run the encoder over the clips of these files and write them, in ascending order. Returns how many clips were embedded.

    In memory: the features of one file.

    Raises:
        ValueError: a feature is NaN or infinite, or too large for float16; clips cannot be decoded; the disk is full.
    """
    if not parts:
        return 0
    encoder = job.encoder.to(world.device).eval()
    order = Stretches(len(job.opened), job.batch, stretches=tuple(map(job.stretch, parts)))
    waiting, gathered, clips = deque(parts), _Gathered(), 0
    told = _Told(world, len(parts))

    def finish() -> _Gathered:
        _write(job, waiting.popleft(), gathered)
        told.part()
        return _Gathered()

    for positions, clip in read_placed(job.opened, order):
        while (
            positions[0] >= job.stretch(waiting[0])[1]
        ):  # several times only where none of a file's clips could be decoded
            gathered = finish()
        gathered.add(positions, clip, _finite(encoder(clip.video), clip, job.name))
        clips += len(positions)
    while waiting:
        gathered = finish()
    return clips


@dataclass
class _Gathered:
    """The clips of a file so far: batches."""

    positions: list[int] = field(default_factory=list)
    frames: list[np.ndarray] = field(default_factory=list)  # (b, 2): first frame seen, and the one after the last
    groups: dict[str, list[np.ndarray]] = field(default_factory=dict)

    def add(self, positions: Sequence[int], clip: Clip, features: dict[str, np.ndarray]) -> None:
        self.positions.extend(positions)
        frames = clip.frames.cpu().numpy()
        self.frames.append(np.stack([frames.min(axis=1), frames.max(axis=1) + 1], axis=1))
        for name, value in features.items():
            self.groups.setdefault(name, []).append(value)


def _finite(found: dict[str, torch.Tensor], clip: Clip, name: str) -> dict[str, np.ndarray]:
    features = {group: value.float().cpu().numpy() for group, value in found.items()}
    for group, value in features.items():
        broken = np.flatnonzero(~np.isfinite(value).all(axis=1))
        if len(broken):
            raise ValueError(
                f"encoder {name}: its {group} features of clip {clip.key[broken[0]]} are NaN or infinite; "
                "the encoder is broken, take an earlier version"
            )
    return features


def _write(job: Job, part: int, gathered: _Gathered) -> None:
    """One file; without a row where none of its clips could be decoded."""
    schema = job.schema
    kept = job.opened.parts[0].selected.kept
    rows = np.asarray(kept[gathered.positions], np.int64) if gathered.positions else np.zeros(0, np.int64)
    index = job.opened.parts[0].index
    columns = _known(index, rows, gathered)
    there = set(gathered.positions)
    lost = [index.key(int(kept[position])) for position in range(*job.stretch(part)) if position not in there]
    schema = schema.with_metadata(schema.metadata | {LOST: json.dumps(lost).encode()})
    for name in job.about["groups"]:
        kind = schema.field(name).type
        value = np.concatenate(gathered.groups[name]) if rows.size else np.zeros((0, kind.list_size), np.float32)
        largest = float(np.abs(value).max(initial=0.0))
        if kind.value_type == pa.float16() and largest > LARGEST:
            raise ValueError(f"{name} features as large as {largest:.3g} do not fit float16; set precision=float32")
        flat = value.astype(kind.value_type.to_pandas_dtype()).reshape(-1)
        columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(flat, kind.value_type), kind.list_size)
    table = pa.table(columns, schema=schema)
    texts = [name for name, _ in KNOWN]
    with atomic(job.folder / NAME.format(part)) as file:
        pq.write_table(
            table,
            file,
            row_group_size=BATCH,
            use_dictionary=[name for name in texts if schema.field(name).type == pa.string() and name != "key"],
            compression=dict.fromkeys(texts, "zstd") | dict.fromkeys(job.about["groups"], "none"),
        )


def _known(index: Index, rows: np.ndarray, gathered: _Gathered) -> dict[str, Any]:
    """The columns that are not features, of ascending rows of the index: from the manifests of their shards."""
    if not len(rows):
        return {name: pa.array([], kind) for name, kind in KNOWN}
    shards = index.rows["shard"][rows]
    tables = []
    for shard in np.unique(shards).tolist():
        name = index.shards[shard].rpartition("/")[2].removesuffix(".tar")
        manifest = read_table(index.root, name).select([*COPIED, "span", "fps"])
        tables.append(manifest.take(rows[shards == shard] - int(index.tars["first"][shard])))
    table = pa.concat_tables(tables).combine_chunks()
    span, rate = (np.array(table[name].to_pylist(), np.int64).reshape(-1, 2) for name in ("span", "fps"))
    seen = np.concatenate(gathered.frames)
    numbers = {
        "start": span[:, 0],
        "stop": span[:, 1],
        "seen_start": seen[:, 0],
        "seen_stop": seen[:, 1],
        "fps": (rate[:, 0] / rate[:, 1]).astype(np.float32),
    }
    return {name: pa.array(numbers[name], kind) if name in numbers else table[name] for name, kind in KNOWN}


def _check(job: Job, there: dict[str, Any]) -> None:
    """Files of one folder come from one encoder, one data set and the same settings."""
    names = ("the data set", "data.filter", "data.clip")
    ours, theirs = str(job.about["digest"]).split("."), str(there.get("digest", "")).split(".")
    changed = [name for name, a, b in zip(names, ours, theirs, strict=False) if a != b]
    for key, told in PINNED.items():
        if there.get(key) != job.about[key]:
            before, now = there.get(key), job.about[key]
            if key == "sha256":
                before, now = (f"{a.get('encoder')} ({str(a.get(key))[:12]})" for a in (there, job.about))
            changed.append(f"{told} ({before}, now {now})")
    if not changed:
        return
    pin = f"; data.snapshot={there.get('snapshot')} pins the one it was made of" if names[0] in changed else ""
    raise ValueError(
        f"{job.folder}: holds embeddings that were made with another {', another '.join(changed).replace('the data', 'data')}"
        f"{pin}; set it back, or give another output"
    )


class _Told:
    """A line after each of rank 0's files, with the time that is left."""

    def __init__(self, world: World, number: int) -> None:
        self._world, self._number, self._done = world, number, 0
        self._began = time.monotonic()

    def part(self) -> None:
        self._done += 1
        left = (time.monotonic() - self._began) / self._done * (self._number - self._done)
        of = " of this process" if self._world.size > 1 else ""
        self._world.say(f"embeddings: {self._done} of {self._number} parts{of}, about {left:.0f} s left")
