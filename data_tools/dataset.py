"""dataset.json: which shards make a data set, as a list of snapshots that only grow; what had to go withdraws the old ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError

from data_tools.places import Place, is_local, read_bytes, write_atomic
from data_tools.sample import SCHEMA_VERSION
from data_tools.shards import ShardStats, finished_shard, first_error, read_table, to_json

DATASET = "dataset.json"
STAGING = "staging"  # in the folder while a `prepare` is unfinished


class Snapshot(BaseModel):
    """One state of a data set. Each holds the shards of the one before and its own, unless shards had to be rewritten."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str  # "1", "2", ...
    digest: str  # sha256 over the shards' names and sha256s
    shards: tuple[str, ...]  # names, in reading order
    clips: int
    frames: int
    bytes: int
    withdrawn: str = ""  # why it can no longer be read: some of its shards were rewritten (scrub, repair)


class Dataset(BaseModel):
    """dataset.json at the root of a data set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    settings: dict[str, Any]  # of `prepare`: everything that shapes the samples
    snapshots: tuple[Snapshot, ...]

    def snapshot(self, name: str = "latest") -> Snapshot:
        """The snapshot with that id; "latest" is the newest.

        Raises:
            ValueError: there is no such snapshot, or it was withdrawn.
        """
        if name == "latest":
            return self.snapshots[-1]
        for snapshot in self.snapshots:
            if snapshot.id == name and snapshot.withdrawn:
                raise ValueError(
                    f"snapshot {name} was withdrawn ({snapshot.withdrawn}); the newest is {self.snapshots[-1].id}"
                )
            if snapshot.id == name:
                return snapshot
        there = ", ".join(s.id for s in self.snapshots if not s.withdrawn)
        raise ValueError(f"no snapshot {name!r} in this data set; it has {there}")

    def next_shard(self) -> int:
        """The number of the first shard that no snapshot has had."""
        heads = (shard.partition("-")[0] for snapshot in self.snapshots for shard in snapshot.shards)
        return max((int(head) + 1 for head in heads if head.isdecimal()), default=0)


def open_dataset(root: Place) -> Dataset:
    """Read root/dataset.json.

    Raises:
        ValueError: no such folder, no data set in it, an unfinished or empty one, or one of another version.
    """
    dataset = read_dataset(root)
    if dataset is None:
        if is_local(root) and not root.is_dir():
            raise ValueError(
                f"{root}: no such folder; make a data set with: python -m data_tools prepare CONFIG output={root}"
            )
        unfinished = (root / STAGING).is_dir()
        state = "an unfinished data set; run the same `prepare` again" if unfinished else "no data set"
        raise ValueError(f"{root}: {state} ({DATASET} is missing)")
    if not dataset.snapshots or not dataset.snapshots[-1].clips:
        raise ValueError(f"{root}: the data set is empty; run `python -m data_tools prepare` into it again")
    return dataset


def read_dataset(root: Place) -> Dataset | None:
    """root/dataset.json, empty or not; None where there is none.

    Raises:
        ValueError: it is none, or one of another version.
    """
    path = root / DATASET
    try:
        content = read_bytes(path)
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        raise ValueError(f"{root}: is a file, not the folder of a data set") from None
    try:
        version = json.loads(content).get("schema_version", SCHEMA_VERSION)
        if version != SCHEMA_VERSION:
            raise ValueError(f"{path}: schema version {version}; this program reads {SCHEMA_VERSION}: prepare it again")
        return Dataset.model_validate_json(content)
    except ValidationError as error:
        raise ValueError(f"{path}: not a data set: {first_error(error)}") from None
    except (json.JSONDecodeError, AttributeError, UnicodeDecodeError):
        raise ValueError(f"{path}: not a data set: no JSON object") from None


def commit_snapshot(root: Place, settings: Mapping[str, Any], shards: Sequence[str]) -> Snapshot:
    """Add a snapshot of the newest one's shards and `shards` (finished ones) to root/dataset.json, atomically.

    Raises:
        ValueError: a shard is not finished, or the data set was made with other settings.
    """
    dataset = read_dataset(root)
    before = dataset.snapshots if dataset is not None else ()
    if dataset is not None and dataset.settings != json.loads(json.dumps(settings)):
        raise ValueError(f"{root}: the data set was made with other settings")
    names = (before[-1].shards if before else ()) + tuple(shards)
    snapshot = _snapshot(root, len(before) + 1, names)
    write_atomic(root / DATASET, to_json(Dataset(settings=dict(settings), snapshots=(*before, snapshot))))
    return snapshot


def replace_shards(root: Place, replaced: Mapping[str, str | None], reason: str) -> Snapshot:
    """Add a snapshot in which shards are replaced by rewritten ones (None: by nothing), atomically.

    Every snapshot that holds a replaced shard is withdrawn for `reason`: from now on nobody reads the old shards, which may be
    removed.

    Raises:
        ValueError: no data set, or a new shard is not finished.
    """
    dataset = open_dataset(root)
    kept = tuple(
        s.model_copy(update={"withdrawn": reason}) if not s.withdrawn and replaced.keys() & set(s.shards) else s
        for s in dataset.snapshots
    )
    names = [replaced.get(name, name) for name in dataset.snapshots[-1].shards]
    snapshot = _snapshot(root, len(kept) + 1, tuple(name for name in names if name is not None))
    write_atomic(root / DATASET, to_json(dataset.model_copy(update={"snapshots": (*kept, snapshot)})))
    return snapshot


def digest_of(stats: Iterable[ShardStats]) -> str:
    """A snapshot's digest: sha256 over `NAME SHA256` lines."""
    return hashlib.sha256("".join(f"{s.name} {s.sha256}\n" for s in stats).encode()).hexdigest()


def read_manifest(root: Place, snapshot: str = "latest") -> pa.Table:
    """One row for each clip, in reading order: `shards.SCHEMA`.

    Raises:
        ValueError: no such data set or snapshot, or its shards are no longer those that the snapshot names.
    """
    chosen = open_dataset(root).snapshot(snapshot)
    if digest_of(_finished(root, chosen.shards)) != chosen.digest:
        raise ValueError(
            f"{root}: the shards differ from snapshot {chosen.id}; see: python -m data_tools verify {root}"
        )
    return pa.concat_tables([read_table(root, name) for name in chosen.shards])


def _snapshot(root: Place, number: int, names: tuple[str, ...]) -> Snapshot:
    stats = _finished(root, names)
    return Snapshot(
        id=str(number),
        digest=digest_of(stats),
        shards=names,
        clips=sum(s.clips for s in stats),
        frames=sum(s.frames for s in stats),
        bytes=sum(s.bytes for s in stats),
    )


def _finished(root: Place, names: Iterable[str]) -> list[ShardStats]:
    found = []
    for name in names:
        stats = finished_shard(root, name)
        if stats is None:
            raise ValueError(f"{root}: shard {name} is missing or unfinished; see: python -m data_tools verify {root}")
        found.append(stats)
    return found
