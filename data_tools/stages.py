"""What a worker process does: identify a film by its bytes, make its samples, pack a shard. Each leaves a whole result or none."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_tools.clips import Tally, film_samples
from data_tools.films import Film, pictures_in
from data_tools.labels import Annotation
from data_tools.ledger import Outcome
from data_tools.sample import Metadata
from data_tools.schema import Prepare
from data_tools.shards import (
    ShardStats,
    finished_shard,
    read_rows,
    sha256_of,
    shard_file,
    stretch,
    write_atomic,
    write_packed,
)
from data_tools.videos import Unusable

Beat = Callable[[int], None]


@dataclass(frozen=True)
class FilmJob:
    """One film to be made into samples."""

    film: Film
    film_id: str
    job: str
    rows: tuple[Annotation, ...]
    settings: Prepare
    staging: Path


@dataclass(frozen=True)
class ShardJob:
    """One shard to be packed: from each staged film, the samples [start, stop)."""

    name: str
    root: Path
    staging: Path
    parts: tuple[tuple[str, int, int], ...]  # job, start, stop


def identify(film: Film, beat: Beat) -> str:
    """The id of a film: 20 hex digits of the hash of its bytes (for frames: of names and bytes, masks included)."""
    if film.kind != "frames" and film.masks is None:
        return sha256_of(film.path, lambda: beat(0))[:20]
    digest = hashlib.sha256()
    paths = [film.path] if film.kind != "frames" else pictures_in(film.path)
    for path in paths + (pictures_in(film.masks) if film.masks is not None else []):
        digest.update(f"{path.parent.name}/{path.name} {sha256_of(path)}\n".encode("utf-8", "surrogateescape"))
        beat(0)
    return digest.hexdigest()[:20]


def staged_outcome(staging: Path, job: str) -> Outcome | None:
    """The outcome of a film that this or an interrupted run has finished; None: still to be done."""
    try:
        return Outcome.model_validate_json(_outcome_path(staging, job).read_bytes())
    except FileNotFoundError:
        return None


def stage_outcome(staging: Path, outcome: Outcome) -> None:
    """Keep an outcome: from now on the film is done."""
    path = _outcome_path(staging, outcome.job)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, outcome.model_dump_json().encode())


def make_film(work: FilmJob, beat: Beat) -> Outcome:
    """Make a film's samples, stage them as a tar of their own, and say what became of it."""
    tally, kept = Tally(), Kept()
    reason = ""
    try:
        samples = film_samples(work.film, work.film_id, work.rows, work.settings, beat, tally)
        first = next(samples, None)
        if first is not None:
            packed = ((s.key, kept.see(s.metadata), s.members()) for s in _chain(first, samples))
            write_packed(_folder(work.staging, work.job), work.job, packed)
        else:
            reason = _empty(tally, work.settings)
    except Unusable as error:
        reason = str(error)
    if reason:
        outcome = Outcome(
            source=work.film.source,
            film=work.film_id,
            job=work.job,
            status="skipped",
            reason=reason,
            film_frames=tally.frames,
            notes=tuple(tally.notes),
        )
    else:
        outcome = Outcome(
            source=work.film.source,
            film=work.film_id,
            job=work.job,
            status="used",
            clips=kept.clips,
            frames=kept.frames,
            film_frames=tally.frames,
            shots=tally.shots,
            short_frames=tally.short_frames,
            kept_frames=kept.kept_frames,
            kept_clips=kept.kept_clips,
            verdicts=dict(sorted(kept.verdicts.items())),
            sizes=tuple(stretch(row)[1] for row in read_rows(_folder(work.staging, work.job), work.job)),
            notes=tuple(tally.notes),
        )
    stage_outcome(work.staging, outcome)
    return outcome


def pack_shard(work: ShardJob, beat: Beat) -> ShardStats:
    """Copy staged samples into a shard of the data set."""
    done = finished_shard(work.root, work.name)
    return done if done is not None else write_packed(work.root, work.name, _staged(work, beat))


class Kept:
    """Counts over the samples of a film as they pass."""

    def __init__(self) -> None:
        self.clips = self.frames = self.kept_frames = self.kept_clips = 0
        self.verdicts: Counter[str] = Counter()

    def see(self, metadata: Metadata) -> Metadata:
        """Count one and hand it on."""
        self.clips += 1
        self.frames += metadata.num_frames
        self.kept_frames += sum(metadata.keep) if metadata.keep else metadata.num_frames
        self.kept_clips += not metadata.verdict
        self.verdicts.update(metadata.verdict)
        return metadata


def _staged(work: ShardJob, beat: Beat) -> Iterator[tuple[str, Metadata, list[tuple[str, bytes]]]]:
    for job, start, stop in work.parts:
        folder = _folder(work.staging, job)
        with shard_file(folder, job, "tar").open("rb") as file:
            for row in read_rows(folder, job)[start:stop]:
                members = []
                for member in row["members"]:
                    file.seek(member["offset"])
                    members.append((member["extension"], file.read(member["size"])))
                beat(row["num_frames"])
                yield row["key"], Metadata.model_validate_json(members[0][1]), members


def _empty(tally: Tally, settings: Prepare) -> str:
    if not tally.frames:
        return "; ".join(["no frame could be decoded", *tally.notes])
    if tally.frames < settings.min_frames:
        return f"{tally.frames} frames: shorter than min_frames = {settings.min_frames}"
    if tally.short_frames < tally.frames:
        return "no clip has all its true masks, and masks.kind is given"
    return f"no shot has min_frames = {settings.min_frames} frames"


def _chain(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest


def _folder(staging: Path, job: str) -> Path:
    return staging / job[:2]


def _outcome_path(staging: Path, job: str) -> Path:
    return _folder(staging, job) / f"{job}.outcome.json"
