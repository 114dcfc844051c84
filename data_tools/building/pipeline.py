"""prepare: films in, a data set out. Stages in order, each exactly once: a killed run goes on where it was and ends with the same bytes."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from data_tools.building import packing
from data_tools.building.identities import Identities
from data_tools.building.intake import Intake
from data_tools.building.ledger import Outcome, Summary, counted, general, read_ledger
from data_tools.building.lock import LOCK, exclusive
from data_tools.building.optouts import read_optouts
from data_tools.building.staging import Staging
from data_tools.clips import versions
from data_tools.config import ConfigError
from data_tools.dataset import STAGING, read_dataset
from data_tools.execution.crews import crew_of
from data_tools.execution.events import Executor
from data_tools.masks import reachable, settled
from data_tools.places import TEMPORARY, Place, is_local, place, sweep_unfinished
from data_tools.progress import Progress, Silent
from data_tools.report.near_duplicates import write_near_duplicates
from data_tools.schema import Prepare
from data_tools.sources.films import Film, Found
from data_tools.sources.inputs import Rows, discover, remarks
from data_tools.unlc.device import with_device

SETTINGS = "settings.json"  # in the staging folder
PACKINGS = 10  # that may meet a damaged clip


def prepare(settings: Prepare, progress: Progress | None = None) -> Summary:
    """Make, go on making, or add to the data set `settings.output` from `settings.input`.

    Every film ends with an outcome and a reason in films.jsonl. The same command again after an interruption, even
    kill -9, ends with the same bytes; with more films it adds a snapshot.

    Raises:
        ValueError: no input, no usable film, an output folder made with other settings, labels that changed.
        OSError: the output cannot be written.
    """
    progress = progress or Silent()
    found, rows = discover(settings)
    for text in remarks(found, rows):
        progress.note(text)
    return prepare_films(found, rows, settings, progress)


def prepare_films(found: Found, rows: Rows, settings: Prepare, progress: Progress) -> Summary:
    """`prepare` for films that are found already, with their rows of labels.csv."""
    begun = time.monotonic()
    settings = with_device(settled(settings), progress.note)
    root = place(settings.output)
    if settings.executor == "ray":  # whose workers are in folders of their own
        root = root.absolute()
        found.films[:] = [_anywhere(film) for film in found.films]
    if not found.films:
        why = _reasons(_rejections(found)) or f"no file looks like one ({found.ignored} others)"
        raise ValueError(f"{_shown(settings)}: no usable film: {why}")
    created = is_local(root) and not root.exists()
    if is_local(root):
        root.mkdir(parents=True, exist_ok=True)
    with exclusive(root, "prepare"):
        staging = _staging(root, settings)
        if settings.executor == "ray":
            settings = reachable(settings, staging.root)
        with crew_of(settings, staging.root / SETTINGS, progress.note) as crew:
            summary = _build(root, staging, found, rows, settings, crew, progress, begun)
        staging.clear()
    if isinstance(summary, str):
        if created:
            root.rmdir()
        raise ValueError(f"{_shown(settings)}: {summary}")
    return summary


def _build(
    root: Place,
    staging: Staging,
    found: Found,
    rows: Rows,
    settings: Prepare,
    crew: Executor,
    progress: Progress,
    begun: float,
) -> Summary | str:
    """What was done, or why there is nothing to do it with."""
    new_clips = 0
    if packing.begun(staging):
        progress.note("an earlier run was packing; that is finished first")
        with _mending(staging, progress):
            new_clips += packing.finish(staging, root, read_ledger(root), settings, crew, progress)
            staging.forget_run()
    optouts = read_optouts(root, place(settings.optouts) if settings.optouts is not None else None)
    identities = Identities(root, staging.root)
    for _ in range(PACKINGS):
        before = read_ledger(root)
        intake = Intake(found.films, rows, before, optouts, settings, staging, identities)
        if intake.num_staged:
            progress.note(f"{intake.num_staged} films were done before; going on")
        intake.run(crew, progress)
        outcomes = [*_rejections(found), *intake.outcomes()]
        if not any(o.status == "used" for o in [*before, *outcomes]):
            return f"no usable film among {len(outcomes)}: {_reasons(outcomes)}"
        packing.begin(staging, root, outcomes, settings)
        with _mending(staging, progress):
            new_clips += packing.finish(staging, root, before, settings, crew, progress)
            break
    else:
        raise OSError(None, f"{staging.root}: what is written there does not stay as it was; is the disk failing?")
    if intake.opted_out:
        progress.note(
            f"{intake.opted_out} films that opted out are in the data set since before: "
            f"python -m data_tools scrub {root} ids=FILE removes them"
        )
    identities.keep()
    alike = write_near_duplicates(root, progress.note)
    return _summary(root, new_clips, alike, settings, begun)


@contextmanager
def _mending(staging: Staging, progress: Progress) -> Iterator[None]:
    """A packing that meets a damaged clip is given up, so that its film is made again."""
    try:
        yield
    except packing.DamagedError as error:
        progress.note(f"a staged clip was damaged (a power failure?): its film {error} is made again")
        packing.abandon(staging, str(error))


def _staging(root: Place, settings: Prepare) -> Staging:
    """The staging folder, after a check that what is there was made with these settings."""
    staging = Staging(root / STAGING)
    dataset = read_dataset(root)
    if dataset is not None:
        _same(dataset.settings, settings)
    marker = staging.read(SETTINGS)
    made_by = versions(settings.masks.kind, settings.masks.network_sha256, settings.masks.flow)
    if marker is not None:
        _same(marker["settings"], settings)
        if marker["versions"] != made_by and not packing.begun(staging):
            staging.forget_run()  # other libraries make other clips: a film must not have some of each
    elif dataset is None and _strange(root):
        raise ValueError(
            f"{root}: the folder is not empty and holds no data set; give a new or empty output folder (if it held one, see: "
            f"python -m data_tools repair {root})"
        )
    sweep_unfinished(root)
    if is_local(root):
        staging.root.mkdir(exist_ok=True)
    staging.write(SETTINGS, {"settings": settings.shaping(), "versions": made_by})
    return staging


def _strange(root: Place) -> bool:
    """Does the folder hold anything but what a `prepare` that died at once leaves there."""
    if is_local(root):
        return any(path.name != STAGING and not TEMPORARY.fullmatch(path.name) for path in root.iterdir())
    names = {
        name.rstrip("/").rpartition("/")[2] for name in (root.fs.ls(root.path, detail=False) if root.exists() else ())
    }
    return bool(names - {STAGING, LOCK, root.name})


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


def _summary(root: Place, new_clips: int, alike: int, settings: Prepare, begun: float) -> Summary:
    dataset = read_dataset(root)
    assert dataset is not None, "it was just committed"
    snapshot = dataset.snapshot()
    rows = read_ledger(root)
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
        alike=alike,
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


def _anywhere(film: Film) -> Film:
    """The film under paths that mean the same in every folder."""
    masks = film.masks.absolute() if film.masks is not None else None
    return replace(film, path=film.path.absolute(), masks=masks)


def _shown(settings: Prepare) -> str:
    return ", ".join(map(str, settings.inputs))
