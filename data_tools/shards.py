"""Shards on disk: tar, DALI index, parquet manifest, statistics; written whole or not at all, and byte-reproducible."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from data_tools.places import Place, atomic, is_local, line, read_bytes, read_range, remove, write_atomic
from data_tools.sample import KEY, SCHEMA_VERSION, Metadata, Sample
from data_tools.sampling import ranks_of

BLOCK = tarfile.BLOCKSIZE  # every member starts on one, one header block ahead of its data
FOLDER = "shards"
KINDS = ("stats.json", "tar", "idx", "parquet")  # files of a shard; the first is its done-marker

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
        ("id", pa.string()),
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
        ("fingerprint", pa.list_(pa.string())),
        ("shot_rank", pa.list_(pa.int32())),  # of the manifest alone: see data_tools/sampling.py
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


class Stretch(NamedTuple):
    """All bytes of a sample in a tar, headers and padding included; they do not depend on where it stands."""

    data: bytes
    ranks: Sequence[int] | None = None  # of its frames within their shot: the manifest's `shot_rank`; None: to be found


def write_shard(root: Place, name: str, samples: Iterable[Sample]) -> ShardStats:
    """Write root/shards/NAME.{tar,idx,parquet,stats.json}; a reader sees all of them or none.

    The same samples give the same bytes. An unfinished earlier try under this name is replaced. Frames are ranked as if each shot had
    all of its clips here.

    Raises:
        ValueError: a sample breaks the contract, two have one key, or there is none.
    """
    return write_stretches(root, name, (Stretch(to_stretch(s.key, s.members())) for s in samples))


def write_stretches(root: Place, name: str, stretches: Iterable[Stretch]) -> ShardStats:
    """`write_shard` for samples that are bytes of a tar already.

    Object stores have no rename: the statistics are removed first and written last, and what has none is not there.
    """
    tar, idx, parquet, done = (shard_file(root, name, kind) for kind in ("tar", "idx", "parquet", "stats.json"))
    if is_local(root):
        tar.parent.mkdir(parents=True, exist_ok=True)
    remove(done)
    with atomic(tar) as file:
        hashed = _Hashing(file)
        rows = list(_write_tar(hashed, name, stretches))
        if not rows:
            raise ValueError(f"shard {name} would be empty")
    if any(row["shot_rank"] is None for row in rows):
        ranks = ranks_of(((row["film"], row["shot"]), row["keep"], row["num_frames"]) for row in rows)
        rows = [row | {"shot_rank": own} for row, own in zip(rows, ranks, strict=True)]
    index = index_of(rows).encode()
    write_atomic(idx, index)
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), buffer, compression="zstd")
    manifest = buffer.getvalue().to_pybytes()
    write_atomic(parquet, manifest)
    stats = ShardStats(
        name=name,
        clips=len(rows),
        frames=sum(row["num_frames"] for row in rows),
        films=len({row["film"] for row in rows}),
        bytes=hashed.size,
        kept_clips=sum(not row["verdict"] for row in rows),
        sha256=hashed.digest.hexdigest(),
        idx_sha256=hashlib.sha256(index).hexdigest(),
        parquet_sha256=hashlib.sha256(manifest).hexdigest(),
    )
    write_atomic(done, to_json(stats))
    return stats


def finished_shard(root: Place, name: str) -> ShardStats | None:
    """The statistics of a finished shard; None where there is none of this name, or an unfinished one."""
    path = shard_file(root, name, "stats.json")
    try:
        return ShardStats.model_validate_json(read_bytes(path))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise ValueError(f"{path}: not the statistics of a shard: {first_error(error)}") from None


def remove_shard(root: Place, name: str) -> None:
    """Remove a shard's files, the done-marker first: from then on it is not there."""
    for kind in KINDS:
        remove(shard_file(root, name, kind))


def shard_file(root: Place, name: str, kind: str) -> Place:
    """Where a shard's file is; `kind` is tar, idx, parquet or stats.json."""
    return root / FOLDER / f"{name}.{kind}"


def read_table(root: Place, name: str) -> pa.Table:
    """The manifest of one shard: `SCHEMA`, a row for each clip in the order of the tar.

    Raises:
        ValueError: it cannot be read.
    """
    path = shard_file(root, name, "parquet")
    try:
        return pq.read_table(pa.BufferReader(read_bytes(path)), schema=SCHEMA)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path}: cannot be read: {line(error)}") from None


def read_rows(root: Place, name: str) -> list[dict[str, Any]]:
    """The manifest rows of one shard as dictionaries, in the order of the tar."""
    return read_table(root, name).to_pylist()


def read_sample(root: Place, row: Mapping[str, Any]) -> Sample:
    """The sample that a manifest row (`table.to_pylist()[i]`) describes.

    Raises:
        ValueError: the shard cannot be read or holds something else there.
    """
    path = shard_file(root, row["shard"], "tar")
    start, size = stretch(row)
    try:
        data = read_range(path, start, size)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {line(error)}") from None
    members = {m["extension"]: data[m["offset"] - start :][: m["size"]] for m in row["members"]}
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


def to_stretch(key: str, members: Iterable[tuple[str, bytes]]) -> bytes:
    """A sample's members as the bytes of a tar: USTAR, time and owner 0, mode 0644."""
    parts = []
    for extension, data in members:
        info = tarfile.TarInfo(f"{key}.{extension}")
        info.size = len(data)
        parts += [info.tobuf(tarfile.USTAR_FORMAT), data, b"\0" * (-len(data) % BLOCK)]
    return b"".join(parts)


def members_of(data: bytes) -> tuple[str, list[tuple[str, int, int]]]:
    """The inverse of `to_stretch`: the key, and (extension, offset, size) of each member.

    Raises:
        ValueError: the bytes are no sample's.
    """
    keys, found, at = set(), [], 0
    try:
        while at < len(data):
            info = tarfile.TarInfo.frombuf(data[at : at + BLOCK], "utf-8", "strict")
            key, _, extension = info.name.partition(".")
            keys.add(key)
            found.append((extension, at + BLOCK, info.size))
            at += BLOCK + -(-info.size // BLOCK) * BLOCK
    except tarfile.HeaderError as error:
        raise ValueError(f"no sample: {line(error)}") from None
    if at != len(data) or len(keys) != 1 or not KEY.fullmatch(min(keys)):
        raise ValueError(f"no sample: {len(data)} bytes with the keys {sorted(keys)}")
    return keys.pop(), found


def metadata_of(data: bytes, members: Sequence[tuple[str, int, int]]) -> Metadata:
    """The `json` member of a stretch.

    Raises:
        ValueError: it does not come first, or does not follow the contract.
    """
    extension, offset, size = members[0]
    try:
        return Metadata.model_validate_json(data[offset : offset + size] if extension == "json" else b"")
    except ValidationError as error:
        raise ValueError(f"no sample: {first_error(error)}") from None


def to_json(model: BaseModel) -> bytes:
    """A model as the text of a file."""
    return (json.dumps(model.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n").encode()


def first_error(error: ValidationError) -> str:
    """The first thing that is wrong, in one line."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first["loc"] else first["msg"]


class _Hashing:
    """A file that is hashed while it is written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.digest, self.size = file, hashlib.sha256(), 0

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self.digest.update(data)
        self.size += len(data)


def _write_tar(file: _Hashing, name: str, stretches: Iterable[Stretch]) -> Iterator[dict[str, Any]]:
    """Append samples to a tar and end it; yields each one's manifest row."""
    seen: set[str] = set()
    for data, ranks in stretches:
        key, members = members_of(data)
        if key in seen:
            raise ValueError(f"two samples have the key {key}")
        seen.add(key)
        metadata = metadata_of(data, members)
        places = [{"extension": e, "offset": file.size + offset, "size": size} for e, offset, size in members]
        file.write(data)
        row = metadata.model_dump()
        row |= {"labels": list(metadata.labels.items()), "versions": list(metadata.versions.items())}
        yield {
            "key": key,
            "shard": name,
            "sha256": hashlib.sha256(data).hexdigest(),
            "members": places,
            "shot_rank": None if ranks is None else list(ranks),
            **row,
        }
    file.write(b"\0" * (2 * BLOCK))
    file.write(b"\0" * (-file.size % tarfile.RECORDSIZE))
