"""What a worker process does: read a film, make its clips, pack a shard. Each leaves whole clips, whole shards, or nothing."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from data_tools.building.ledger import Outcome
from data_tools.building.staging import DAMAGED, Staging
from data_tools.clips import Tally, film_clips
from data_tools.places import Place, is_local, sha256_of
from data_tools.sample import Metadata
from data_tools.sampling import ranks_of
from data_tools.schema import Prepare
from data_tools.shards import (
    ShardStats,
    Stretch,
    finished_shard,
    members_of,
    metadata_of,
    to_stretch,
    write_stretches,
)
from data_tools.sources.download import Unreachable
from data_tools.sources.fetch import fetch_film
from data_tools.sources.films import Film, pictures_in
from data_tools.sources.labels import Annotation, span_edges
from data_tools.videos import Unusable

Beat = Callable[[int], None]


@dataclass(frozen=True)
class ReadJob:
    """One film whose content is not known yet."""

    film: Film
    settings: Prepare


@dataclass(frozen=True)
class FilmJob:
    """One film to be made into clips.

    Attributes:
        job: what decides whether it must be done again (`ledger.job_hash`).
        name: under which it is staged: the job and the source, which stands in the clips.
    """

    film: Film
    film_id: str
    job: str
    name: str
    rows: tuple[Annotation, ...]
    settings: Prepare
    staging: Staging
    stamp: str = ""


@dataclass(frozen=True)
class ShardJob:
    """One shard to be packed: from each staged film, the clips [start, stop)."""

    name: str
    root: Place
    staging: Staging
    parts: tuple[ShardPart, ...]


@dataclass(frozen=True)
class ShardPart:
    """Clips [start, stop) of a staged film, counted from 0."""

    film: str
    start: int
    stop: int


@dataclass(frozen=True)
class Content:
    """What a film holds: its id, or why it cannot be read."""

    film_id: str = ""
    reason: str = ""
    passing: bool = False  # another day it may be read


def take(work: ReadJob | FilmJob, beat: Beat) -> Content | Outcome:
    """Read a film, or make its clips: what a worker is given for both, one after the other."""
    return read_film(work, beat) if isinstance(work, ReadJob) else make_film(work, beat)


def read_film(work: ReadJob, beat: Beat) -> Content:
    """The id of a film: 20 hex digits of the hash of its bytes (for frames: of names and bytes, masks included).

    A remote one is fetched; it stays on this machine until this process is given something else.
    """
    try:
        return Content(_identity(_Held.get(work.film, work.settings, beat), beat))
    except Unusable as error:
        return Content(reason=str(error), passing=isinstance(error, Unreachable))


def make_film(work: FilmJob, beat: Beat) -> Outcome:
    """Make a film's clips, stage each one, and say what became of the film. Clips that are staged already are not made again."""
    tally, kept = Tally(), Kept()
    reason = ""
    try:
        film = _Held.get(work.film, work.settings, beat)
        _stage_clips(work, film, beat, tally, kept)
        if not kept.clips:
            reason = _empty(tally, work)
    except Unusable as error:
        reason = str(error)
    finally:
        _Held.let_go()
    outcome = Outcome(
        source=work.film.source,
        id=_user_id(work.rows),
        film=work.film_id,
        job=work.job,
        status="skipped" if reason else "used",
        reason=reason,
        film_frames=tally.frames,
        notes=tuple(tally.notes),
        stamp=work.stamp,
    )
    if not reason:
        outcome = outcome.model_copy(
            update={
                "clips": kept.clips,
                "frames": kept.frames,
                "shots": tally.shots,
                "short_frames": tally.short_frames,
                "kept_frames": kept.kept_frames,
                "kept_clips": kept.kept_clips,
                "verdicts": dict(sorted(kept.verdicts.items())),
                "sizes": tuple(kept.sizes),
            }
        )
    work.staging.put_outcome(work.name, outcome)
    return outcome


def pack_shard(work: ShardJob, beat: Beat) -> ShardStats:
    """Copy staged clips into a shard of the data set.

    Raises:
        ValueError: a staged clip is missing or torn.
    """
    done = finished_shard(work.root, work.name)
    return done if done is not None else write_stretches(work.root, work.name, _packed(work, beat))


class Kept:
    """Counts over the clips of a film as they pass."""

    def __init__(self) -> None:
        self.clips = self.frames = self.kept_frames = self.kept_clips = 0
        self.verdicts: Counter[str] = Counter()
        self.sizes: list[int] = []

    def see(self, metadata: Metadata, size: int) -> None:
        """Count one."""
        self.clips += 1
        self.frames += metadata.num_frames
        self.kept_frames += sum(metadata.keep) if metadata.keep else metadata.num_frames
        self.kept_clips += not metadata.verdict
        self.verdicts.update(metadata.verdict)
        self.sizes.append(size)


def _stage_clips(work: FilmJob, film: Film, beat: Beat, tally: Tally, kept: Kept) -> None:
    """Make and stage what is not staged yet."""
    done = work.staging.clips(work.name)
    for clip in film_clips(film, work.film_id, work.rows, work.settings, beat, tally):
        stretch = work.staging.get_clip(work.name, done[clip.start]) if clip.start in done else None
        if stretch is None:
            sample = clip.make()
            metadata, stretch = sample.metadata, to_stretch(sample.key, sample.members())
            work.staging.put_clip(work.name, clip.start, stretch)
        else:
            metadata = metadata_of(stretch, members_of(stretch)[1])
        kept.see(metadata, len(stretch))


def _packed(work: ShardJob, beat: Beat) -> Iterator[Stretch]:
    for part in work.parts:
        files = list(work.staging.clips(part.film).values())
        heads = [work.staging.metadata(part.film, file) for file in files]
        ranks = ranks_of((head.shot, head.keep, head.num_frames) for head in heads)  # a shot may go on in another shard
        for number in range(part.start, part.stop):
            stretch = work.staging.get_clip(part.film, files[number]) if number < len(files) else None
            if stretch is None:
                raise ValueError(f"{DAMAGED} {part.film} (number {number})")
            beat(heads[number].num_frames)
            yield Stretch(stretch, ranks[number])


def _identity(film: Film, beat: Beat) -> str:
    if film.kind != "frames" and film.masks is None:
        return sha256_of(film.path, lambda: beat(0))[:20]
    digest = hashlib.sha256()
    frames = [film.path] if film.kind != "frames" else pictures_in(film.path)
    masks = pictures_in(film.masks) if film.masks is not None else []
    for kind, paths in (("frames", frames), ("masks", masks)):
        for path in paths:
            digest.update(f"{kind}/{path.name} {sha256_of(path)}\n".encode("utf-8", "surrogateescape"))
            beat(0)
    return digest.hexdigest()[:20]


class _Held:
    """The one film that this process has fetched: what reads it and what makes its clips come after each other."""

    source: str | None = None
    film: Film | None = None
    folder: str | None = None

    @classmethod
    def get(cls, film: Film, settings: Prepare, beat: Beat) -> Film:
        """The film with its files on this machine."""
        if cls.source == film.source and cls.film is not None:
            return cls.film
        cls.let_go()
        if film.kind != "frames" and is_local(film.path):
            _check_size(film, settings)
        if is_local(film.path) and (film.masks is None or is_local(film.masks)):
            return film
        cls.folder = tempfile.mkdtemp(dir=_scratch(settings.scratch))
        cls.film = fetch_film(film, Path(cls.folder), beat, settings.attempts, settings.max_film_bytes)
        cls.source = film.source
        return cls.film

    @classmethod
    def let_go(cls) -> None:
        """Remove what was fetched."""
        if cls.folder is not None:
            shutil.rmtree(cls.folder, ignore_errors=True)
        cls.source = cls.film = cls.folder = None


def _check_size(film: Film, settings: Prepare) -> None:
    size = film.path.stat().st_size
    if size > settings.max_film_bytes:
        raise Unusable(f"{size} bytes; max_film_bytes is {settings.max_film_bytes}")


@cache
def _scratch(chosen: str | None) -> Path:
    """A folder of this process for films that are being read; those of processes that are gone are removed."""
    base = (
        Path(chosen or tempfile.gettempdir()) / f"data_tools-{socket.gethostname()}-{os.getuid()}"
    )  # it may be shared
    base.mkdir(parents=True, exist_ok=True)
    for left in base.iterdir():
        if left.name.isdecimal() and not Path(f"/proc/{left.name}").exists():
            shutil.rmtree(left, ignore_errors=True)
    mine = base / str(os.getpid())
    shutil.rmtree(mine, ignore_errors=True)
    mine.mkdir()
    return mine


def _user_id(rows: tuple[Annotation, ...]) -> str | None:
    return next((row.id for row in rows if row.id), None)


def _empty(tally: Tally, work: FilmJob) -> str:
    settings = work.settings
    if not tally.frames:
        return "; ".join(["no frame could be decoded", *tally.notes])
    if tally.frames < settings.min_frames:
        return f"{tally.frames} frames: shorter than min_frames = {settings.min_frames}"
    if tally.short_frames < tally.frames:
        return "no clip has all its true masks, and masks.kind is given"
    cut = ", cut at the edges of its spans," if span_edges(work.rows) else ""
    return f"no shot{cut} has min_frames = {settings.min_frames} frames"
