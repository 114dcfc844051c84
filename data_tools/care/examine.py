"""What is left of a shard: which of its samples are good, and which files must be made again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Any, NamedTuple

import pyarrow as pa

from data_tools.care.contract import broken, sample_of, stretch_of
from data_tools.care.decoders import within_bounds
from data_tools.care.neighbours import Clip, clip_of
from data_tools.care.tars import LARGEST, here, stretches
from data_tools.places import Place, line, read_bytes, sha256_of, size_of
from data_tools.sample import KEY, SCHEMA_VERSION, Metadata
from data_tools.shards import ShardStats, finished_shard, members_of, metadata_of, read_table, shard_file
from data_tools.videos import decode_clip

BATCH = 64  # rows of a manifest as objects at a time
NEEDED = ("key", "sha256", "members", "film", "source", "shot", "num_frames")  # columns that a manifest must fill


class Slot(NamedTuple):
    """A sample that should be in a shard. `clip` is None where it is damaged or lost."""

    key: str
    film: str = ""  # "": nobody knows
    source: str = ""
    clip: Clip | None = None
    start: int = 0  # of its bytes in the tar
    size: int = 0  # 0: they are not there
    vouched: bool = True  # a checksum says so; else no more is known than that it can be decoded


@dataclass
class Examined:
    """What `examine` found.

    Attributes:
        faults: what is wrong, for people; none: nothing is.
        recorded: sha256 of the tar, from the statistics; None where they are lost.
        tar_sha256: of the tar that is there; None where it is lost.
        manifest: where it is the recorded one.
        slots: samples in the order of the tar; not filled where both of these hold.
    """

    name: str
    faults: list[str] = field(default_factory=list)
    recorded: str | None = None
    tar_sha256: str | None = None
    manifest: pa.Table | None = None
    slots: list[Slot] = field(default_factory=list)

    @property
    def tar_holds(self) -> bool:
        """Is the tar the recorded one."""
        return self.tar_sha256 is not None and self.tar_sha256 == self.recorded

    @property
    def holds(self) -> bool:
        """Are all samples where the manifest says; the index may be lost."""
        return self.tar_holds and self.manifest is not None and not self.slots

    @property
    def damaged(self) -> list[Slot]:
        """Samples that are damaged or lost."""
        return [slot for slot in self.slots if slot.clip is None]


def examine(root: Place, name: str, decode: bool = False) -> Examined:
    """Look at the files of a shard.

    Args:
        decode: decode also the clips whose checksums hold.
    Raises:
        OSError: a file is there and cannot be read: nobody knows whether it is damaged.
    """
    found = Examined(name)
    stats = _statistics(root, name, found)
    found.recorded = stats.sha256 if stats is not None else None
    _compare(root, name, "idx", stats.idx_sha256 if stats is not None else None, found)
    vouched = _compare(root, name, "parquet", stats.parquet_sha256 if stats is not None else None, found)
    table = _manifest(root, name)
    found.manifest = table if vouched else None
    try:
        with here(shard_file(root, name, "tar")) as path, path.open("rb") as file:
            found.tar_sha256 = sha256_of(path)
            if stats is not None and not found.tar_holds:
                found.faults.append("tar is damaged")
            if not found.tar_holds:
                slots = _slots(file, table, _indexed(root, name), decode)
            else:
                slots = slots_in(file, decode) if decode or found.manifest is None else iter(())
            found.slots = list({slot.key: slot for slot in slots}.values())
    except FileNotFoundError:
        found.faults.append("tar is missing")
        found.slots = list(_slots(None, table, _indexed(root, name), decode))
    if found.tar_holds and found.manifest is not None and not found.damaged:
        found.slots = []  # all of them hold
    if found.holds and stats != recounted(stats, found.manifest, size_of(shard_file(root, name, "tar"))):
        found.faults.append("stats.json is wrong")
    if found.damaged:
        found.faults.append(f"{len(found.damaged)} of {len(found.slots)} samples are damaged")
    return found


def recounted(stats: ShardStats | None, table: pa.Table | None, size: int | None) -> ShardStats | None:
    """Statistics with the counts that a shard's manifest, and the size of its tar in bytes, give."""
    if stats is None or table is None:
        return None
    counts = {
        "clips": table.num_rows,
        "frames": sum(table["num_frames"].to_pylist()),
        "films": len(table["film"].unique()),
        "bytes": size,
        "kept_clips": sum(not verdict for verdict in table["verdict"].to_pylist()),
    }
    return stats.model_copy(update=counts | {"name": table["shard"][0].as_py(), "schema_version": SCHEMA_VERSION})


def manifest_of(root: Place, name: str) -> pa.Table:
    """`read_table`, and every value in it can be read too.

    Raises:
        ValueError: it cannot be read.
        FileNotFoundError: there is none.
    """
    table = read_table(root, name)
    try:
        table.validate(full=True)
    except pa.ArrowException as error:
        raise ValueError(f"{shard_file(root, name, 'parquet')}: cannot be read: {line(error)}") from None
    return table


def rows_of(table: pa.Table) -> Iterator[dict[str, Any]]:
    """The rows of a manifest as dictionaries, few at a time."""
    for batch in table.to_batches(BATCH):
        yield from batch.to_pylist()


def slots_in(file: IO[bytes], decode: bool = False) -> Iterator[Slot]:
    """The samples of a tar that is as it was written."""
    for key, start, size in stretches(file):
        metadata = _read(file, start, size, decode=decode)
        yield _slot(metadata, key, start, size) if metadata is not None else Slot(key)


def sound(block: bytes) -> Metadata | None:
    """The metadata of a sample that keeps the contract and whose clip can be decoded; None of any other."""
    try:
        sample = sample_of(block)
        within_bounds(sample.video)
        whole = decode_clip(sample.video).shape == (sample.metadata.num_frames, *sample.metadata.size, 3)
    except Exception:  # what damaged bytes make a library raise is not known beforehand
        return None
    return sample.metadata if whole and not list(broken(sample)) else None


def _statistics(root: Place, name: str, found: Examined) -> ShardStats | None:
    try:
        stats = finished_shard(root, name)
    except ValueError:
        found.faults.append("stats.json is damaged")
        return None
    if stats is None:
        found.faults.append("stats.json is missing")
    return stats


def _compare(root: Place, name: str, kind: str, wanted: str | None, found: Examined) -> bool:
    """Is a small file the recorded one."""
    try:
        digest = hashlib.sha256(read_bytes(shard_file(root, name, kind))).hexdigest()
    except FileNotFoundError:
        found.faults.append(f"{kind} is missing")
        return False
    if wanted is not None and digest != wanted:
        found.faults.append(f"{kind} is damaged")
    return digest == wanted


def _manifest(root: Place, name: str) -> pa.Table | None:
    """The manifest, whoever vouches for it; None where it is of no use."""
    try:
        table = manifest_of(root, name)
    except (FileNotFoundError, ValueError):
        return None
    return None if any(table[column].null_count for column in NEEDED) else table


def _indexed(root: Place, name: str) -> list[str]:
    """The keys that the index names, in order; none where it cannot be read."""
    try:
        lines = read_bytes(shard_file(root, name, "idx")).decode("utf-8", "replace").splitlines()[1:]
    except FileNotFoundError:
        return []
    keys = [text.split(" ")[3].partition(".")[0] for text in lines if text.count(" ") >= 3]
    return [key for key in dict.fromkeys(keys) if KEY.fullmatch(key)]


def _slots(file: IO[bytes] | None, table: pa.Table | None, indexed: list[str], decode: bool) -> Iterator[Slot]:
    """The samples of a tar that is damaged, or lost (None), by the best list of them that there is."""
    there: dict[str, tuple[int, int]] = {}
    for key, start, size in stretches(file) if file is not None else ():
        there.setdefault(key, (start, size))
    if table is not None:
        for row in rows_of(table):
            yield _listed(file, row, there, decode)
        return
    for key in indexed or there:
        start, size = there.get(key, (0, 0))
        metadata = _read(file, start, size, decode=True) if file is not None and size else None
        yield _slot(metadata, key, start, size, vouched=False) if metadata is not None else Slot(key)


def _listed(file: IO[bytes] | None, row: dict[str, Any], there: dict[str, tuple[int, int]], decode: bool) -> Slot:
    """The sample of a manifest's row: where the row says, or where else it is found."""
    lost = Slot(row["key"], row["film"], row["source"])
    if file is None:
        return lost
    places = [there[row["key"]]] if row["key"] in there else []
    with suppress(ValueError):
        places.insert(0, stretch_of(row, os.fstat(file.fileno()).st_size))
    for start, size in places:
        metadata = _read(file, start, size, row["sha256"], decode)
        if metadata is not None:
            return _slot(metadata, row["key"], start, size)
    return lost


def _read(file: IO[bytes], start: int, size: int, sha256: str | None = None, decode: bool = False) -> Metadata | None:
    if size > LARGEST:
        return None
    block = os.pread(file.fileno(), size, start)
    if sha256 is not None and hashlib.sha256(block).hexdigest() != sha256:
        return None
    if decode:
        return sound(block)
    try:
        return metadata_of(block, members_of(block)[1])
    except ValueError:
        return None


def _slot(metadata: Metadata, key: str, start: int, size: int, vouched: bool = True) -> Slot:
    return Slot(key, metadata.film, metadata.source, clip_of(metadata), start, size, vouched)
