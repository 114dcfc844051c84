"""prepare: films in, a data set out. Stages in order, each exactly once: a killed run goes on where it was and ends with the same bytes."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from data_tools.clips import settings_hash
from data_tools.config import ConfigError
from data_tools.films import Film, Found
from data_tools.inputs import Rows, discover, remarks
from data_tools.ledger import Outcome, Summary, counted, general, job_hash, read_ledger, write_ledger
from data_tools.lock import exclusive
from data_tools.progress import Progress, Silent
from data_tools.schema import Prepare
from data_tools.shards import FOLDER, commit_snapshot, open_dataset, write_atomic
from data_tools.stages import FilmJob, ShardJob, stage_outcome, staged_outcome
from data_tools.workers import Crew, Done, Failed

STAGING = "staging"  # in the output folder while a run is unfinished


def prepare(settings: Prepare, progress: Progress | None = None) -> Summary:
    """Make, go on making, or add to the data set `settings.output` from `settings.input`.

    Every film ends with an outcome and a reason in films.jsonl. The same command again after an interruption, even
    kill -9, ends with the same bytes; with more films it adds a snapshot.

    Raises:
        ValueError: no input, no usable film, an output folder made with other settings, labels that changed.
        OSError: the output cannot be written.
    """
    progress = progress or Silent()
    begun = time.monotonic()
    found, rows = discover(settings)
    for line in remarks(found, rows):
        progress.note(line)
    if not found.films:
        why = _reasons(_rejections(found)) or f"no file looks like one ({found.ignored} others)"
        raise ValueError(f"{_shown(settings)}: no usable film: {why}")
    created = not settings.output.exists()
    settings.output.mkdir(parents=True, exist_ok=True)
    with exclusive(settings.output, "prepare"), Crew(settings.num_workers, settings.time_limit) as crew:
        staging = _staging(settings)
        before = read_ledger(settings.output)
        outcomes, jobs = _plan_films(found, rows, before, settings, staging, crew, progress)
        outcomes += _make_films(jobs, settings, staging, crew, progress)
        if not any(o.status == "used" for o in [*before, *outcomes]):
            shutil.rmtree(staging)
            if created:
                settings.output.rmdir()
            raise ValueError(f"{_shown(settings)}: no usable film among {len(outcomes)}: {_reasons(outcomes)}")
        fresh = sorted((o for o in outcomes if o.status == "used" and not o.snapshot), key=lambda o: o.film)
        new = _pack(fresh, bool(before), settings, staging, crew, progress)
        summary = _finish(outcomes, before, new, settings, begun)
        shutil.rmtree(staging)
    return summary


def _staging(settings: Prepare) -> Path:
    """The staging folder, after a check that what is there was made with these settings."""
    root, staging = settings.output, settings.output / STAGING
    if (root / "dataset.json").exists():
        _same(open_dataset(root).settings, settings)
    elif not staging.exists() and any(root.iterdir()):
        raise ValueError(f"{root}: the folder is not empty and holds no data set; give a new or empty output folder")
    marker = staging / "settings.json"
    if marker.exists():
        _same(json.loads(marker.read_text()), settings)
    staging.mkdir(exist_ok=True)
    write_atomic(marker, json.dumps(settings.shaping(), indent=1).encode())
    for leftover in (root / FOLDER).glob(".*.tmp"):  # of a killed run
        leftover.unlink()
    return staging


def _same(made_with: dict[str, Any], settings: Prepare) -> None:
    changed = sorted(_differences(made_with, settings.shaping()))
    if changed:
        shown = "; ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
        raise ConfigError(f"{settings.output}: made with other settings ({shown}); give another output folder")


def _differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old.keys() | new.keys():
            yield from _differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    elif old != new:
        yield f"{path} was {json.dumps(old)}, is {json.dumps(new)}"


def _plan_films(
    found: Found,
    rows: Rows,
    before: Sequence[Outcome],
    settings: Prepare,
    staging: Path,
    crew: Crew,
    progress: Progress,
) -> tuple[list[Outcome], list[FilmJob]]:
    """(outcomes known without decoding, films to be made): the same whoever hashes first."""
    outcomes = _rejections(found)
    identities = _identify(found.films, crew, progress, outcomes)
    packed = {o.film: o for o in before if o.status == "used"}
    decided = {o.job: o for o in before if not (settings.retry and o.status == "failed")}
    shaping = settings_hash(settings)
    jobs: list[FilmJob] = []
    first: dict[str, str] = {}  # film id -> source
    changed = []
    for film, film_id in identities:
        job = job_hash(film_id, shaping, rows[film.source])
        if film_id in first:
            reason, job = f"duplicate of {first[film_id]}", job_hash(film_id, film.source, ())
            outcomes.append(Outcome(source=film.source, film=film_id, job=job, status="skipped", reason=reason))
            continue
        first[film_id] = film.source
        if film_id in packed and packed[film_id].job != job:
            changed.append(film.source)
        elif job in decided:
            outcomes.append(decided[job])
            if decided[job].source != film.source:
                progress.note(f"{film.source}: known from an earlier run as {decided[job].source}")
        else:
            jobs.append(FilmJob(film, film_id, job, rows[film.source], settings, staging))
    if changed:
        raise ValueError(
            f"{settings.output}: labels or masks of {len(changed)} films changed since they were packed (first: {changed[0]}); "
            "give another output folder"
        )
    return outcomes, jobs


def _identify(films: Sequence[Film], crew: Crew, progress: Progress, outcomes: list[Outcome]) -> list[tuple[Film, str]]:
    """Films with their ids, in the order of their names; one that cannot be read goes to `outcomes`."""
    progress.stage("reading", len(films), "films")
    ids: dict[int, str] = {}
    for event in crew.run("data_tools.stages:identify", films):
        if isinstance(event, Done):
            ids[event.job] = event.result
            progress.advance(1)
        elif isinstance(event, Failed):
            film = films[event.job]
            outcomes.append(
                Outcome(source=film.source, job=f"unread {film.source}", status="failed", reason=event.reason)
            )
            progress.note(f"{film.source}: {event.reason}")
            progress.advance(1)
    return [(films[i], ids[i]) for i in sorted(ids)]


def _make_films(
    jobs: Sequence[FilmJob], settings: Prepare, staging: Path, crew: Crew, progress: Progress
) -> list[Outcome]:
    """Outcomes of all jobs, those of an interrupted run included."""
    known = {job.job: staged_outcome(staging, job.job) for job in jobs}
    outcomes = [o for o in known.values() if o is not None and not (settings.retry and o.status == "failed")]
    done = {o.job for o in outcomes}
    todo = [job for job in jobs if job.job not in done]
    if outcomes:
        progress.note(f"{len(outcomes)} films were done before; going on")
    progress.stage("preparing", len(todo), "films")
    for event in crew.run("data_tools.stages:make_film", todo):
        if isinstance(event, Done | Failed):
            if isinstance(event, Done):
                outcome: Outcome = event.result
            else:
                job = todo[event.job]
                outcome = Outcome(
                    source=job.film.source, film=job.film_id, job=job.job, status="failed", reason=event.reason
                )
                stage_outcome(staging, outcome)
            outcomes.append(outcome)
            for text in [outcome.reason] * (outcome.status != "used") + list(outcome.notes):
                progress.note(f"{outcome.source}: {text}")
            progress.advance(1)
        else:
            progress.advance(frames=event.amount)
    return outcomes


def _pack(
    fresh: Sequence[Outcome], grows: bool, settings: Prepare, staging: Path, crew: Crew, progress: Progress
) -> list[str]:
    """Pack what is staged into shards; returns their names. Films follow each other by id: mixed, and the same every time."""
    root = settings.output
    taken = open_dataset(root).snapshot().shards if grows else ()
    plan = _shards(fresh, settings.shard_bytes, len(taken))
    content = json.dumps([[name, parts] for name, parts in plan]).encode()
    marker = staging / "plan.json"
    if not marker.exists() or marker.read_bytes() != content:  # shards of an interrupted run with other films are void
        for path in (root / FOLDER).glob("*") if (root / FOLDER).is_dir() else ():
            if path.name.partition(".")[0] not in taken:
                path.unlink()
        write_atomic(marker, content)
    work = [ShardJob(name, root, staging, parts) for name, parts in plan]
    progress.stage("packing", len(work), "shards")
    for event in crew.run("data_tools.stages:pack_shard", work):
        if isinstance(event, Failed):
            raise OSError(
                None, f"shard {work[event.job].name} could not be packed: {event.reason}; run the same command again"
            )
        progress.advance(isinstance(event, Done), 0 if isinstance(event, Done) else event.amount)
    return [name for name, _ in plan]


def _shards(used: Sequence[Outcome], limit: int, number: int) -> list[tuple[str, tuple[tuple[str, int, int], ...]]]:
    """Deal the samples of films to shards of about `limit` bytes, numbered from `number`."""
    plan: list[tuple[str, tuple[tuple[str, int, int], ...]]] = []
    parts: list[tuple[str, int, int]] = []
    total = 0

    def close() -> None:
        nonlocal parts, total
        plan.append((f"{number + len(plan):06d}", tuple(parts)))
        parts, total = [], 0

    for outcome in used:
        start = 0
        for i, size in enumerate(outcome.sizes):
            total += size
            if total >= limit:
                parts.append((outcome.job, start, i + 1))
                close()
                start = i + 1
        if start < len(outcome.sizes):
            parts.append((outcome.job, start, len(outcome.sizes)))
    if parts:
        close()
    return plan


def _finish(
    outcomes: Sequence[Outcome], before: Sequence[Outcome], new: Sequence[str], settings: Prepare, begun: float
) -> Summary:
    """Ledger first, dataset.json last: a snapshot that is not in dataset.json has not happened."""
    root = settings.output
    number = (len(open_dataset(root).snapshots) if before else 0) + bool(new)
    prior = {(o.source, o.job): o for o in before}
    rows = {(o.source, o.job): o for o in before if o.status == "used" or o.source not in {n.source for n in outcomes}}
    for outcome in outcomes:
        row = outcome.model_copy(update={"sizes": (), "snapshot": outcome.snapshot or number})
        known = prior.get((row.source, row.job))
        unchanged = known is not None and known == row.model_copy(update={"snapshot": known.snapshot})
        rows[row.source, row.job] = known if unchanged and known is not None else row
    write_ledger(root, rows.values())
    if new:
        commit_snapshot(root, settings.shaping(), new)
    return _summary(list(rows.values()), sum(o.clips for o in outcomes if not o.snapshot), settings, begun)


def _summary(rows: Sequence[Outcome], new_clips: int, settings: Prepare, begun: float) -> Summary:
    root = settings.output
    snapshot = open_dataset(root).snapshot()
    used = [o for o in rows if o.status == "used"]
    verdicts = Counter[str]()
    for outcome in used:
        verdicts.update(outcome.verdicts)
    return Summary(
        output=str(root),
        snapshot=snapshot.id,
        digest=snapshot.digest,
        films=len(rows),
        used=len(used),
        clips=snapshot.clips,
        frames=snapshot.frames,
        bytes=snapshot.bytes,
        shards=len(snapshot.shards),
        new_clips=new_clips,
        reasons=counted(rows),
        judged=settings.masks.kind != "none",
        kept_clips=sum(o.kept_clips for o in used),
        verdicts=dict(verdicts.most_common()),
        short_frames=sum(o.short_frames for o in used),
        seconds=time.monotonic() - begun,
    )


def _rejections(found: Found) -> list[Outcome]:
    return [
        Outcome(source=r.source, job=f"rejected {r.source}", status="skipped", reason=r.reason)
        for r in sorted(found.rejected, key=lambda r: r.source)
    ]


def _reasons(outcomes: Sequence[Outcome]) -> str:
    kinds = Counter(general(o.reason) for o in outcomes)
    return ", ".join(f"{count} x {reason}" for reason, count in kinds.most_common(3))


def _shown(settings: Prepare) -> str:
    return ", ".join(map(str, settings.inputs))
