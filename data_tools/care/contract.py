"""What must hold of one sample: checksum, members, json against manifest, masks against frames; and of the ranks within each shot."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from data_tools.care.decoders import SAME_PICTURE, Decoder, within_bounds
from data_tools.care.tars import LARGEST, shown
from data_tools.places import line
from data_tools.sample import ORDER, SCHEMA_VERSION, Metadata, Sample
from data_tools.sampling import shot_ranks
from data_tools.shards import BLOCK, SCHEMA, members_of
from data_tools.videos import Unusable

FINGERPRINT = re.compile(r"[0-9a-f]{16}")
OF_THE_MANIFEST = frozenset({"key", "shard", "sha256", "members", "shot_rank"})  # columns that no json gives
Problem = Callable[[str], None]


def stretch_of(row: Mapping[str, Any], length: int) -> tuple[int, int]:
    """(offset, size) of a sample in a tar of `length` bytes, from a row that anybody may have written.

    Raises:
        ValueError: the row gives none that could be.
    """
    try:
        first, last = row["members"][0], row["members"][-1]
        start = int(first["offset"]) - BLOCK
        size = int(last["offset"]) + -(-int(last["size"]) // BLOCK) * BLOCK - start
    except (TypeError, IndexError, KeyError):
        raise ValueError("the manifest's row names no members") from None
    if start < 0 or size <= 0 or start + size > length:
        raise ValueError(f"the manifest puts it at bytes {start} to {start + size} of {length}")
    if size > LARGEST:
        raise ValueError(f"the manifest gives it {size} bytes: more than a sample has")
    return start, size


def sample_of(block: bytes) -> Sample:
    """The sample that a stretch of a tar holds.

    Raises:
        ValueError: it breaks the contract.
    """
    key, members = members_of(block)
    try:
        sample = Sample.from_members(key, {e: block[offset : offset + size] for e, offset, size in members})
    except ValueError:
        raise
    except Exception as error:  # what a damaged picture makes a library raise is not known beforehand
        raise ValueError(f"{key}: {line(error)}") from None
    there = [extension for extension, _, _ in members]
    other = "mp4" if sample.metadata.codec == "png" else "png"
    expected = [extension for extension in ORDER if extension in there and extension != other]
    if there != expected:
        raise ValueError(f"members {shown(', '.join(there))}; the contract has {', '.join(expected)}")
    return sample


def check_sample(block: bytes, row: Mapping[str, Any], problem: Problem) -> Sample | None:
    """Everything that can be said of a sample without decoding its frames; the sample, where it is one."""
    if hashlib.sha256(block).hexdigest() != row["sha256"]:
        problem("its sha256 is not the one in the manifest")
    try:
        sample = sample_of(block)
    except ValueError as error:
        problem(line(error))
        return None
    if sample.key != row["key"]:
        problem(f"the tar holds {shown(sample.key)} there")
    for text in (*broken(sample), *_other_values(sample.metadata, row)):
        problem(text)
    return sample


def broken(sample: Sample) -> Iterator[str]:
    """What of a sample breaks the contract."""
    meta = sample.metadata
    if meta.schema_version != SCHEMA_VERSION:
        yield f"schema version {meta.schema_version}, expected {SCHEMA_VERSION}"
    if meta.span[1] - meta.span[0] != meta.num_frames:
        yield f"span {meta.span} does not hold {meta.num_frames} frames"
    if (meta.masks != "none") != (sample.mask is not None):
        yield f"masks are {meta.masks!r}, but mask.png is {'there' if sample.mask is not None else 'missing'}"
    for kind, mask in (("mask", sample.mask), ("truth", sample.truth)):
        if mask is not None and (len(mask) != meta.num_frames or mask.shape[1:] != meta.mask_size):
            yield f"{kind}.png holds {mask.shape}, its json says T={meta.num_frames}, size {meta.mask_size}"
    statistics = meta.statistics
    of_frames: dict[str, Sequence[Any]] = {"boxes": meta.boxes, "keep": meta.keep}
    if statistics is not None:
        of_frames |= {name: getattr(statistics, name) for name in ("foreground", "border", "uncertain")}
    for name, values in of_frames.items():
        if values and len(values) != meta.num_frames:
            yield f"{len(values)} {name} for {meta.num_frames} frames"
    odd = [text for text in meta.fingerprint if not FINGERPRINT.fullmatch(text)]
    if odd:
        yield f"fingerprint {shown(odd[0])} is not 16 hex digits"


def check_decoding(sample: Sample, decoders: Sequence[Decoder], problem: Problem) -> list[str]:
    """Decode a clip with each decoder that takes its codec and compare with the first; returns who was asked."""
    meta = sample.metadata
    wanted = (meta.num_frames, *meta.size, 3)
    reference: tuple[str, np.ndarray] | None = None
    asked = []
    try:
        within_bounds(sample.video)
    except Unusable as error:
        problem(f"is not decoded: {error}")
        return []
    for decoder in decoders:
        if meta.codec not in decoder.codecs:
            continue
        asked.append(decoder.title)
        try:
            frames = decoder.decode(sample.video)
        except Exception as error:  # every library has exceptions of its own
            problem(f"{decoder.title} cannot decode it: {line(error)}")
            continue
        if frames.shape != wanted:
            problem(f"{decoder.title} decodes {frames.shape}, its json says {wanted}")
        if reference is None:
            reference = decoder.title, frames
        elif frames.shape == reference[1].shape:
            apart = float(np.abs(frames.astype(np.int16) - reference[1]).mean())
            if apart > SAME_PICTURE:
                problem(f"{decoder.title} and {reference[0]} decode different pictures ({apart:.1f} grey levels apart)")
    return asked


class Ranks:
    """Are the manifest's `shot_rank` those of the shots; rows are shown in reading order, whatever shards they stand in."""

    def __init__(self, problem: Callable[[str, str], None]) -> None:
        self._problem = problem
        self._shot: tuple[str, int] | None = None
        self._clips: list[tuple[str, list[bool], list[int] | None]] = []

    def see(self, where: str, row: Mapping[str, Any]) -> None:
        """The next clip."""
        if (row["film"], row["shot"]) != self._shot:
            self.close()
            self._shot = (row["film"], row["shot"])
        keep = list(row["keep"] or ()) or [True] * (row["num_frames"] or 0)
        self._clips.append((where, keep, row["shot_rank"]))

    def close(self) -> None:
        """No clip of the shot follows."""
        clips, self._clips = self._clips, []
        for (where, keep, stored), wanted in zip(clips, shot_ranks([keep for _, keep, _ in clips]), strict=True):
            if stored and len(stored) != len(keep):
                self._problem(where, f"{len(stored)} shot ranks for {len(keep)} frames")
            elif stored and stored != wanted:
                self._problem(where, "its shot ranks are not those of its shot")


def _other_values(meta: Metadata, row: Mapping[str, Any]) -> Iterator[str]:
    """In what the manifest differs from the json."""
    values = meta.model_dump()
    values |= {"labels": list(meta.labels.items()), "versions": list(meta.versions.items())}
    columns = [name for name in SCHEMA.names if name not in OF_THE_MANIFEST]
    schema = pa.schema([SCHEMA.field(name) for name in columns])
    (said,) = pa.Table.from_pylist([values], schema=schema).to_pylist()  # rounded as the manifest's numbers are
    for name in columns:
        if said[name] != row[name]:
            yield f"the manifest says {name} = {shown(row[name])}, its json {shown(said[name])}"
