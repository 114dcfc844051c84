"""Staged clips -> shards -> a snapshot. A packing that has begun is finished before anything else; what it packed leaves staging."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence

from data_tools.building.ledger import Outcome, job_hash, write_ledger
from data_tools.building.stages import ShardJob, ShardPart
from data_tools.building.staging import DAMAGED, Staging
from data_tools.dataset import commit_snapshot, read_dataset
from data_tools.execution.events import Done, Executor, Failed
from data_tools.places import Place, is_local, listed, remove, size_of
from data_tools.progress import Progress
from data_tools.schema import Prepare
from data_tools.shards import FOLDER

PLAN = "plan.json"  # in the staging folder: a packing has begun

Plan = list[tuple[str, tuple[ShardPart, ...]]]  # shard, its clips


class DamagedError(RuntimeError):
    """A clip of the staged film `args[0]` is not what it was, as after a power failure."""


def abandon(staging: Staging, film: str) -> None:
    """Give a packing up: the film is made again, and then all is packed anew."""
    staging.drop(film)
    remove(staging.root / PLAN)


def begin(staging: Staging, root: Place, outcomes: Sequence[Outcome], settings: Prepare) -> None:
    """Decide which films the snapshot gets; from now on `finish` is owed, whatever happens.

    Films follow each other by id: mixed, and the same every time.
    """
    dataset = read_dataset(root)
    number = len(dataset.snapshots) if dataset is not None else 0
    fresh = sorted((o for o in outcomes if o.status == "used" and not o.snapshot), key=lambda o: o.film)
    committed = [shard for snapshot in (dataset.snapshots if dataset else ()) for shard in snapshot.shards]
    _remove_strangers(root, committed)  # of a run whose staging folder is gone
    shards = list(deal(fresh, settings.shard_bytes, dataset.next_shard() if dataset is not None else 0))
    os.sync()  # the staged clips are on disk before anything relies on them
    staging.write(
        PLAN,
        {
            "snapshot": number + bool(fresh),
            "outcomes": [o.model_dump(mode="json", exclude_defaults=True) for o in outcomes],
            "shards": [[name, [[p.film, p.start, p.stop] for p in parts]] for name, parts in shards],
        },
    )


def begun(staging: Staging) -> bool:
    """Is a packing unfinished."""
    return size_of(staging.root / PLAN) is not None


def finish(
    staging: Staging, root: Place, before: Sequence[Outcome], settings: Prepare, crew: Executor, progress: Progress
) -> int:
    """Pack the shards, write the ledger, commit the snapshot; returns how many clips are new.

    Ledger first, dataset.json last: a snapshot that is not in dataset.json has not happened.

    Raises:
        DamagedError: see `abandon`.
        OSError: a shard could not be written; the same command again goes on.
    """
    plan = staging.read(PLAN)
    outcomes = [Outcome.model_validate(row) for row in plan["outcomes"]]
    shards = [(name, tuple(ShardPart(*part) for part in parts)) for name, parts in plan["shards"]]
    dataset = read_dataset(root)
    committed = dataset is not None and len(dataset.snapshots) >= plan["snapshot"]
    new = tuple(name for name, _ in shards)
    if not committed or not new:
        _remove_strangers(root, [*new, *(s for snap in (dataset.snapshots if dataset else ()) for s in snap.shards)])
        _pack(shards, staging, root, crew, progress)
        write_ledger(root, _merged(outcomes, before, plan["snapshot"]))
        if new:
            commit_snapshot(root, settings.shaping(), new)
    return sum(o.clips for o in outcomes if o.status == "used" and not o.snapshot)


def deal(used: Sequence[Outcome], limit: int, number: int) -> Iterator[tuple[str, tuple[ShardPart, ...]]]:
    """Deal the clips of films to shards of about `limit` bytes, numbered from `number`."""
    parts: list[ShardPart] = []
    total = 0
    for outcome in used:
        start, film = 0, job_hash(outcome.job, outcome.source)
        for i, size in enumerate(outcome.sizes):
            total += size
            if total >= limit:
                yield f"{number:06d}", (*parts, ShardPart(film, start, i + 1))
                parts, total, number, start = [], 0, number + 1, i + 1
        if start < len(outcome.sizes):
            parts.append(ShardPart(film, start, len(outcome.sizes)))
    if parts:
        yield f"{number:06d}", tuple(parts)


def _pack(shards: Plan, staging: Staging, root: Place, crew: Executor, progress: Progress) -> None:
    """Write the shards; a film leaves the staging folder with the last shard that it is in."""
    work = [ShardJob(name, root, staging, parts) for name, parts in shards]
    waiting = Counter(part.film for _, parts in shards for part in parts)
    progress.stage("packing", len(work), "shards")
    for event in crew.run("data_tools.building.stages:pack_shard", work):
        if isinstance(event, Failed):
            if DAMAGED in event.reason:
                raise DamagedError(event.reason.partition(DAMAGED)[2].split()[0])
            raise OSError(
                None, f"shard {work[event.job].name} could not be packed: {event.reason}; run the same command again"
            )
        if not isinstance(event, Done):
            progress.advance(frames=event.amount)
            continue
        progress.advance(1)
        for part in shards[event.job][1]:
            waiting[part.film] -= 1
            if not waiting[part.film] and is_local(root):  # a store is emptied at once, at the end
                staging.forget(part.film)


def _remove_strangers(root: Place, names: Sequence[str]) -> None:
    """Remove shards that neither a snapshot nor the plan knows, and what a killed process was writing."""
    known = set(names)
    for file in listed(root / FOLDER):
        if file.partition(".")[0] not in known:
            remove(root / FOLDER / file)


def _merged(outcomes: Sequence[Outcome], before: Sequence[Outcome], number: int) -> list[Outcome]:
    """The ledger after this run: what is new takes the place of what was said of the same source."""
    prior = {(o.source, o.job): o for o in before}
    now = {outcome.source for outcome in outcomes}
    rows = {(o.source, o.job): o for o in before if o.status == "used" or o.source not in now}
    for outcome in outcomes:
        row = outcome.model_copy(update={"sizes": (), "stamp": "", "snapshot": outcome.snapshot or number})
        known = prior.get((row.source, row.job))
        unchanged = known is not None and known == row.model_copy(update={"snapshot": known.snapshot})
        rows[row.source, row.job] = known if unchanged and known is not None else row
    return list(rows.values())
