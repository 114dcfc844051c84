"""Shards on disk: tar, DALI index, parquet manifest, statistics; atomic and byte-reproducible. dataset.json lists snapshots."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from data_tools.sample import SCHEMA_VERSION, Metadata, Sample

BLOCK = 512  # bytes of a tar block: every member starts on one, one header block ahead of its data
FOLDER = "shards"

Packed = tuple[str, Metadata, list[tuple[str, bytes]]]  # key, json member, all members in order

_TEXTS = pa.map_(pa.string(), pa.string())
_SHARES = pa.list_(pa.float32())
SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("shard", pa.string()),
        ("sha256", pa.string()),  # of the sample's stretch of the tar: first header to last padding byte
        ("members", pa.list_(pa.struct([("extension", pa.string()), ("offset", pa.int64()), ("size", pa.int64())]))),
        ("schema_version", pa.int32()),
        ("film", pa.string()),
        ("source", pa.string()),
        ("shot", pa.int32()),
        ("span", pa.list_(pa.int64())),
        ("fps", pa.list_(pa.int32())),
        ("size", pa.list_(pa.int32())),
        ("num_frames", pa.int32()),
        ("codec", pa.string()),
        ("group", pa.string()),
        ("split", pa.string()),
        ("labels", _TEXTS),
        ("masks", pa.string()),
        ("mask_size", pa.list_(pa.int32())),
        ("boxes", pa.list_(pa.list_(pa.float32()))),
        ("keep", pa.list_(pa.bool_())),
        ("verdict", pa.list_(pa.string())),
        (
            "statistics",
            pa.struct(
                [
                    ("foreground", _SHARES),
                    ("border", _SHARES),
                    ("uncertain", _SHARES),
                    ("flatness", pa.float32()),
                    ("consistency", pa.float32()),
                ]
            ),
        ),
        ("licence", pa.string()),
        ("attribution", pa.string()),
        ("versions", _TEXTS),
    ]
)


class ShardStats(BaseModel):
    """NAME.stats.json: the done-marker of a shard."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    name: str
    clips: int
    frames: int
    films: int
    bytes: int  # of the tar
    kept_clips: int  # that the pruning rules would keep
    sha256: str  # of the tar
    idx_sha256: str
    parquet_sha256: str


class Snapshot(BaseModel):
    """One state of a data set. Snapshots only grow: each holds the shards of the one before and its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str  # "1", "2", ...
    digest: str  # sha256 over the shards' names and sha256s
    shards: tuple[str, ...]  # names, in reading order
    clips: int
    frames: int
    bytes: int


class Dataset(BaseModel):
    """dataset.json at the root of a data set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    settings: dict[str, Any]  # of `prepare`: everything that shapes the samples
    snapshots: tuple[Snapshot, ...]

    def snapshot(self, name: str = "latest") -> Snapshot:
        """The snapshot with that id; "latest" is the newest.

        Raises:
            ValueError: there is no such snapshot.
        """
        if name == "latest":
            return self.snapshots[-1]
        for snapshot in self.snapshots:
            if snapshot.id == name:
                return snapshot
        raise ValueError(f"no snapshot {name!r} in this data set; it has {', '.join(s.id for s in self.snapshots)}")


def write_shard(root: Path, name: str, samples: Iterable[Sample]) -> ShardStats:
    """Write root/shards/NAME.{tar,idx,parquet,stats.json}; a reader sees all of them or none.

    The same samples give the same bytes. An unfinished earlier try under this name is replaced.

    Raises:
        ValueError: a sample breaks the contract, two have one key, or there is none.
    """
    return write_packed(root, name, ((s.key, s.metadata, s.members()) for s in samples))


def write_packed(root: Path, name: str, samples: Iterable[Packed]) -> ShardStats:
    """`write_shard` for samples whose members are bytes already."""
    base = root / FOLDER / name
    base.parent.mkdir(parents=True, exist_ok=True)
    _beside(base, "stats.json").unlink(missing_ok=True)
    with atomic(_beside(base, "tar")) as file:
        rows = list(_write_tar(file, name, samples))
    if not rows:
        _beside(base, "tar").unlink()
        raise ValueError(f"shard {name} would be empty")
    write_atomic(_beside(base, "idx"), index_of(rows).encode())
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    with atomic(_beside(base, "parquet")) as file:
        pq.write_table(table, file, compression="zstd")
    stats = ShardStats(
        name=name,
        clips=len(rows),
        frames=sum(row["num_frames"] for row in rows),
        films=len({row["film"] for row in rows}),
        bytes=_beside(base, "tar").stat().st_size,
        kept_clips=sum(not row["verdict"] for row in rows),
        sha256=sha256_of(_beside(base, "tar")),
        idx_sha256=sha256_of(_beside(base, "idx")),
        parquet_sha256=sha256_of(_beside(base, "parquet")),
    )
    write_atomic(_beside(base, "stats.json"), _json(stats))
    return stats


def finished_shard(root: Path, name: str) -> ShardStats | None:
    """The statistics of a finished shard; None where there is none of this name, or an unfinished one."""
    path = _beside(root / FOLDER / name, "stats.json")
    try:
        return ShardStats.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise ValueError(f"{path}: not the statistics of a shard: {_first(error)}") from None


def shard_file(root: Path, name: str, kind: str) -> Path:
    """Path of a shard's file; `kind` is tar, idx, parquet or stats.json."""
    return _beside(root / FOLDER / name, kind)


def open_dataset(root: Path) -> Dataset:
    """Read root/dataset.json.

    Raises:
        ValueError: no such folder, no data set in it, an unfinished or empty one, or one of another version.
    """
    path = root / "dataset.json"
    if not root.is_dir():
        raise ValueError(
            f"{root}: no such folder; make a data set with: python -m data_tools prepare CONFIG output={root}"
        )
    try:
        dataset = Dataset.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        state = "an unfinished data set; run the same `prepare` again" if (root / "staging").is_dir() else "no data set"
        raise ValueError(f"{root}: {state} (dataset.json is missing)") from None
    except ValidationError as error:
        raise ValueError(f"{path}: not a data set: {_first(error)}") from None
    if dataset.schema_version != SCHEMA_VERSION:
        raise ValueError(f"{path}: schema version {dataset.schema_version}; this program reads {SCHEMA_VERSION}")
    if not dataset.snapshots or not dataset.snapshots[-1].clips:
        raise ValueError(f"{root}: the data set is empty; run `python -m data_tools prepare` into it again")
    return dataset


def commit_snapshot(root: Path, settings: Mapping[str, Any], shards: Sequence[str]) -> Snapshot:
    """Add a snapshot of the newest one's shards and `shards` (finished ones) to root/dataset.json, atomically.

    Raises:
        ValueError: a shard is not finished, or the data set was made with other settings.
    """
    path = root / "dataset.json"
    before: tuple[Snapshot, ...] = ()
    if path.exists():
        dataset = Dataset.model_validate_json(path.read_bytes())
        before = dataset.snapshots
        if dataset.settings != json.loads(json.dumps(settings)):
            raise ValueError(f"{root}: the data set was made with other settings")
    names = (before[-1].shards if before else ()) + tuple(shards)
    stats = _finished(root, names)
    snapshot = Snapshot(
        id=str(len(before) + 1),
        digest=digest_of(stats),
        shards=names,
        clips=sum(s.clips for s in stats),
        frames=sum(s.frames for s in stats),
        bytes=sum(s.bytes for s in stats),
    )
    write_atomic(path, _json(Dataset(settings=dict(settings), snapshots=(*before, snapshot))))
    return snapshot


def digest_of(stats: Iterable[ShardStats]) -> str:
    """A snapshot's digest: sha256 over `NAME SHA256` lines."""
    return hashlib.sha256("".join(f"{s.name} {s.sha256}\n" for s in stats).encode()).hexdigest()


def read_manifest(root: Path, snapshot: str = "latest") -> pa.Table:
    """One row for each clip, in reading order: `SCHEMA`.

    Raises:
        ValueError: no such data set or snapshot, or its shards are no longer those that the snapshot names.
    """
    chosen = open_dataset(root).snapshot(snapshot)
    if digest_of(_finished(root, chosen.shards)) != chosen.digest:
        raise ValueError(
            f"{root}: the shards differ from snapshot {chosen.id}; see: python -m data_tools verify {root}"
        )
    return pa.concat_tables([_shard_table(root, name) for name in chosen.shards])


def read_rows(root: Path, name: str) -> list[dict[str, Any]]:
    """The manifest rows of one finished shard, in the order of the tar."""
    return _shard_table(root, name).to_pylist()


def read_sample(root: Path, row: Mapping[str, Any]) -> Sample:
    """The sample that a manifest row (`table.to_pylist()[i]`) describes.

    Raises:
        ValueError: the shard cannot be read or holds something else there.
    """
    path = shard_file(root, row["shard"], "tar")
    try:
        with path.open("rb") as file:
            members = {m["extension"]: os.pread(file.fileno(), m["size"], m["offset"]) for m in row["members"]}
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {_line(error)}") from None
    return Sample.from_members(row["key"], members)


def stretch(row: Mapping[str, Any]) -> tuple[int, int]:
    """(offset, size) of all bytes of a sample in its tar: what `sha256` covers."""
    last = row["members"][-1]
    start = row["members"][0]["offset"] - BLOCK
    return start, last["offset"] + -(-last["size"] // BLOCK) * BLOCK - start


def index_of(rows: Iterable[Mapping[str, Any]]) -> str:
    """A DALI v1.2 index: a count, then for each sample `extension offset size name` of every member."""
    lines = [
        " ".join(f"{m['extension']} {m['offset']} {m['size']} {row['key']}.{m['extension']}" for m in row["members"])
        for row in rows
    ]
    return "\n".join([f"v1.2 {len(lines)}", *lines]) + "\n"


def _write_tar(file: IO[bytes], name: str, samples: Iterable[Packed]) -> Iterator[dict[str, Any]]:
    """Append samples to a tar; yields each one's manifest row."""
    seen: set[str] = set()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for key, metadata, members in samples:
            if key in seen:
                raise ValueError(f"two samples have the key {key}")
            seen.add(key)
            digest = hashlib.sha256()
            places = []
            for extension, data in members:
                info = tarfile.TarInfo(f"{key}.{extension}")  # mtime 0, owner 0, mode 0644: reproducible
                info.size = len(data)
                places.append({"extension": extension, "offset": tar.offset + BLOCK, "size": len(data)})
                digest.update(info.tobuf(tarfile.USTAR_FORMAT) + data + b"\0" * (-len(data) % BLOCK))
                tar.addfile(info, io.BytesIO(data))
            row = metadata.model_dump()
            row |= {"labels": list(metadata.labels.items()), "versions": list(metadata.versions.items())}
            yield {"key": key, "shard": name, "sha256": digest.hexdigest(), "members": places, **row}


@contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears under `path` complete and on disk, or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name is on disk too
    finally:
        os.close(folder)


def write_atomic(path: Path, data: bytes) -> None:
    """`atomic` for bytes at hand."""
    with atomic(path) as file:
        file.write(data)


def sha256_of(path: Path, progress: Callable[[], None] | None = None) -> str:
    """Hex digest of a file's bytes; `progress` is called now and then."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
            if progress is not None:
                progress()
    return digest.hexdigest()


def _shard_table(root: Path, name: str) -> pa.Table:
    path = shard_file(root, name, "parquet")
    try:
        return pq.read_table(path, schema=SCHEMA)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path}: cannot be read: {_line(error)}") from None


def _finished(root: Path, names: Iterable[str]) -> list[ShardStats]:
    found = []
    for name in names:
        stats = finished_shard(root, name)
        if stats is None:
            raise ValueError(f"{root}: shard {name} is missing or unfinished; see: python -m data_tools verify {root}")
        found.append(stats)
    return found


def _beside(base: Path, kind: str) -> Path:
    return base.with_name(f"{base.name}.{kind}")


def _json(model: BaseModel) -> bytes:
    return (json.dumps(model.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n").encode()


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first["loc"] else first["msg"]


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
