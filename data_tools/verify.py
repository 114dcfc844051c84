"""Prove that a data set is what it says: tar structure, index, checksums, the contract of every sample, decoding of sampled clips."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.progress import Progress, Silent
from data_tools.sample import SCHEMA_VERSION, Sample
from data_tools.schema import Verify
from data_tools.shards import (
    SCHEMA,
    Snapshot,
    digest_of,
    finished_shard,
    index_of,
    open_dataset,
    read_rows,
    sha256_of,
    shard_file,
    stretch,
)
from data_tools.videos import Unusable, decode_clip

DALI_CODECS = frozenset({"vp9"})  # what DALI decodes without a GPU
SAME_PICTURE = 6.0  # mean absolute difference of two decoders' frames, in grey levels: chroma is upsampled differently


@dataclass
class Report:
    """What `verify` found."""

    path: str
    snapshot: str
    limit: int
    shards: int = 0
    clips: int = 0
    decoded: int = 0
    decoded_by_dali: int = 0
    num_problems: int = 0
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def problem(self, where: str, what: str) -> None:
        """Note one; the first `limit` are kept."""
        self.num_problems += 1
        if len(self.problems) < self.limit:
            self.problems.append(f"problem: {where}: {what}")

    def lines(self) -> list[str]:
        """A line for each problem, and the summary last."""
        more = self.num_problems - len(self.problems)
        verdict = "no problems" if not self.num_problems else f"{self.num_problems} problems"
        return [
            *self.problems,
            *([f"... and {more} more"] if more else []),
            *self.remarks,
            f"{self.path}, snapshot {self.snapshot}: {verdict} in {self.shards} shards, {self.clips} clips; "
            f"{self.decoded} clips decoded with PyAV, {self.decoded_by_dali} with DALI",
        ]


def verify(settings: Verify, progress: Progress | None = None) -> Report:
    """Check a snapshot of a data set.

    Raises:
        ValueError: there is no data set, or no such snapshot.
    """
    progress = progress or Silent()
    dataset = open_dataset(settings.path)
    snapshot = dataset.snapshot(settings.snapshot)
    report = Report(str(settings.path), snapshot.id, settings.max_problems, shards=len(snapshot.shards))
    _check_snapshot(settings.path, snapshot, report)
    every = max(1, -(-snapshot.clips // settings.decode)) if settings.decode else 0
    dali = _Dali() if settings.dali and settings.decode else None
    if dali is not None and dali.missing:
        report.remarks.append(f"DALI cannot be loaded here ({dali.missing}): decoded with PyAV only")
        dali = None
    seen: set[str] = set()
    progress.stage("verifying", len(snapshot.shards), "shards")
    for name in snapshot.shards:
        try:
            _check_shard(settings.path, name, every, dali, seen, report, progress)
        except (ValueError, OSError) as error:
            report.problem(f"{name}", " ".join(str(error).split()))
        progress.advance(1)
    if report.clips != snapshot.clips:
        report.problem("dataset.json", f"says {snapshot.clips} clips, the shards hold {report.clips}")
    return report


def _check_snapshot(root: Path, snapshot: Snapshot, report: Report) -> None:
    found = []
    for name in snapshot.shards:
        try:
            stats = finished_shard(root, name)
        except ValueError as error:
            report.problem(name, str(error))
            continue
        if stats is None:
            report.problem(f"{name}.stats.json", "is missing: the shard is unfinished or lost")
        else:
            found.append(stats)
    if len(found) == len(snapshot.shards) and digest_of(found) != snapshot.digest:
        report.problem("dataset.json", "the digest does not fit the shards: a shard was replaced")


def _check_shard(
    root: Path, name: str, every: int, dali: _Dali | None, seen: set[str], report: Report, progress: Progress
) -> None:
    stats = finished_shard(root, name)
    for kind, wanted in (
        ("tar", stats and stats.sha256),
        ("idx", stats and stats.idx_sha256),
        ("parquet", stats and stats.parquet_sha256),
    ):
        path = shard_file(root, name, kind)
        if not path.is_file():
            report.problem(path.name, "is missing")
        elif wanted and sha256_of(path) != wanted:
            report.problem(path.name, "its sha256 is not the one in the statistics: the file was changed or damaged")
    rows = read_rows(root, name)
    _check_index(root, name, rows, report)
    _check_tar(root, name, rows, report)
    with shard_file(root, name, "tar").open("rb") as file:
        for row in rows:
            sample = _check_sample(file.fileno(), row, report)
            if row["key"] in seen:
                report.problem(f"{name}/{row['key']}", "the key stands in the data set twice")
            seen.add(row["key"])
            if sample is not None and every and report.clips % every == 0:
                _check_decoding(sample, dali, report)
            report.clips += 1
            progress.advance(frames=row["num_frames"])


def _check_index(root: Path, name: str, rows: list[dict[str, Any]], report: Report) -> None:
    path = shard_file(root, name, "idx")
    if path.is_file() and path.read_text(encoding="utf-8", errors="replace") != index_of(rows):
        report.problem(path.name, "does not give the offsets that the manifest gives")


def _check_tar(root: Path, name: str, rows: list[dict[str, Any]], report: Report) -> None:
    """What `tar` and the webdataset library see, against the manifest."""
    path = shard_file(root, name, "tar")
    wanted = [
        (f"{row['key']}.{member['extension']}", member["offset"], member["size"])
        for row in rows
        for member in row["members"]
    ]
    try:
        with tarfile.open(path, "r:") as tar:
            members = tar.getmembers()
    except (tarfile.TarError, OSError, EOFError) as error:
        report.problem(path.name, f"is no whole tar: {error}")
        return
    if [(m.name, m.offset_data, m.size) for m in members] != wanted:
        report.problem(path.name, "its members are not those of the manifest")
    odd = [m.name for m in members if not m.isreg() or m.mtime or m.uid or m.gid]
    if odd:
        report.problem(
            path.name, f"{len(odd)} members are no plain files with neutral dates and owners (first: {odd[0]})"
        )
    try:
        groups = [sample["__key__"] for sample in _webdataset(path)]
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        report.problem(path.name, f"the webdataset library cannot read it: {error}")
        return
    if groups != [row["key"] for row in rows]:
        report.problem(path.name, f"the webdataset library reads {len(groups)} samples, the manifest has {len(rows)}")


def _webdataset(path: Path) -> Iterator[dict[str, Any]]:
    from webdataset.tariterators import group_by_keys, tar_file_expander

    with path.open("rb") as stream:
        yield from group_by_keys(tar_file_expander([{"url": path.name, "stream": stream}]))


def _check_sample(handle: int, row: Mapping[str, Any], report: Report) -> Sample | None:
    """Checksum and contract of one sample; the sample where it holds."""
    where = f"{row['shard']}/{row['key']}"
    start, size = stretch(row)
    block = os.pread(handle, size, start)
    if hashlib.sha256(block).hexdigest() != row["sha256"]:
        report.problem(where, "its sha256 is not the one in the manifest")
    members = {m["extension"]: block[m["offset"] - start : m["offset"] - start + m["size"]] for m in row["members"]}
    try:
        sample = Sample.from_members(row["key"], members)
    except ValueError as error:
        report.problem(where, str(error))
        return None
    meta = sample.metadata
    if meta.schema_version != SCHEMA_VERSION:
        report.problem(where, f"schema version {meta.schema_version}, expected {SCHEMA_VERSION}")
    expected = [extension for extension, _ in sample.members()]
    if list(members) != expected:
        report.problem(where, f"members {', '.join(members)}; the contract has {', '.join(expected)}")
    for field_name, value in meta.model_dump().items():
        stored = row[field_name]
        if SCHEMA.field(field_name).type.num_fields == 0 and stored != value:
            report.problem(where, f"the manifest says {field_name} = {stored!r}, its json {value!r}")
    if meta.span[1] - meta.span[0] != meta.num_frames:
        report.problem(where, f"span {meta.span} does not hold {meta.num_frames} frames")
    if (meta.masks != "none") != (sample.mask is not None):
        report.problem(
            where, f"masks are {meta.masks!r}, but mask.png is {'there' if sample.mask is not None else 'missing'}"
        )
    for kind, mask in (("mask", sample.mask), ("truth", sample.truth)):
        if mask is not None and (len(mask) != meta.num_frames or mask.shape[1:] != meta.mask_size):
            report.problem(
                where, f"{kind}.png holds {mask.shape}, its json says T={meta.num_frames}, size {meta.mask_size}"
            )
    for listed, values in (("boxes", meta.boxes), ("keep", meta.keep)):
        if values and len(values) != meta.num_frames:
            report.problem(where, f"{len(values)} {listed} for {meta.num_frames} frames")
    return sample


def _check_decoding(sample: Sample, dali: _Dali | None, report: Report) -> None:
    meta = sample.metadata
    report.decoded += 1
    wanted = (meta.num_frames, *meta.size, 3)
    try:
        frames = decode_clip(sample.video)
    except Unusable as error:
        report.problem(sample.key, f"PyAV cannot decode it: {error}")
        return
    if frames.shape != wanted:
        report.problem(sample.key, f"PyAV decodes {frames.shape}, its json says {wanted}")
    if dali is None or meta.codec not in DALI_CODECS:
        return
    report.decoded_by_dali += 1
    try:
        other = dali.decode(sample.video)
    except RuntimeError as error:
        report.problem(sample.key, f"DALI cannot decode it: {str(error).strip().splitlines()[-1]}")
        return
    if other.shape != frames.shape:
        report.problem(sample.key, f"DALI decodes {other.shape}, PyAV {frames.shape}")
    elif np.abs(other.astype(np.int16) - frames).mean() > SAME_PICTURE:
        report.problem(sample.key, "DALI and PyAV decode different pictures")


class _Dali:
    """DALI's decoder of one clip at a time, on CPU."""

    def __init__(self) -> None:
        self.missing = ""
        self._clip = b""
        try:
            import nvidia.dali  # noqa: F401
        except Exception as error:  # a missing library says so in many ways
            self.missing = " ".join(str(error).split())[:120]

    def decode(self, video: bytes) -> np.ndarray:
        """mp4 bytes -> uint8 (T, H, W, 3) RGB; RuntimeError where it cannot."""
        from nvidia.dali import fn
        from nvidia.dali.pipeline import Pipeline

        pipe = Pipeline(batch_size=1, num_threads=1, device_id=None)
        with pipe:
            encoded = fn.external_source(source=lambda: [np.frombuffer(video, dtype=np.uint8)], batch=True)
            pipe.set_outputs(fn.decoders.video(encoded, device="cpu"))
        pipe.build()
        return np.array(pipe.run()[0].at(0))
