"""Make films again as `prepare` made them: the same content with the same settings and libraries gives the same bytes."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from pydantic import ValidationError

from data_tools.masks import settled
from data_tools.progress import Progress
from data_tools.schema import Prepare, Repair
from data_tools.shards import first_error, members_of
from data_tools.unlc.device import with_device

TAKE = "data_tools.building.stages:take"


class Wanted(NamedTuple):
    """Samples of a film that should be made again."""

    film: str  # id: hash of its bytes
    source: str
    keys: frozenset[str]


# gives for each of these, in any order, those of its keys that the film still gives, as bytes of a tar
Rebuild: TypeAlias = Callable[[Sequence[Wanted]], Iterator[tuple[Wanted, dict[str, bytes]]]]


def rebuilder(settings: Repair, made_with: Mapping[str, Any], progress: Progress) -> Rebuild:
    """What makes films of `settings.input` again, in processes of this machine that may crash or hang.

    Args:
        made_with: the settings in dataset.json.
    Raises:
        ValueError: these are none of `prepare`, as it is now, or the segmenter that made the masks is not at hand.
    """
    masks = dict(made_with.get("masks", {}))
    if masks.get("kind") in ("network", "combined"):
        if settings.network is None:
            raise ValueError(
                f"{settings.path}: a network made its masks (sha256 {str(masks.get('network_sha256'))[:12]}...): "
                "give its file, network=NAME.pt2, or leave out input="
            )
        masks["network"] = settings.network
    given = {
        "masks": masks,
        "input": settings.input,
        "output": settings.path,
        "columns": settings.columns,
        "labels_file": settings.labels_file,
        "boxes_file": settings.boxes_file,
        "workers": settings.workers,
        "scratch": settings.scratch,
    }
    try:
        prepare = Prepare.model_validate_json(json.dumps({**made_with, **given}))
    except ValidationError as error:
        raise ValueError(
            f"{settings.path}: its settings are not those of this version's `prepare` ({first_error(error)}): "
            "films cannot be made again with them; leave out input="
        ) from None
    prepare = with_device(settled(prepare), progress.note)

    def rebuild(wanted: Sequence[Wanted]) -> Iterator[tuple[Wanted, dict[str, bytes]]]:
        with tempfile.TemporaryDirectory(dir=settings.scratch) as scratch:
            yield from _made(wanted, prepare, Path(scratch), progress)

    return rebuild


def _made(
    wanted: Sequence[Wanted], settings: Prepare, scratch: Path, progress: Progress
) -> Iterator[tuple[Wanted, dict[str, bytes]]]:
    from data_tools.building.ledger import Outcome
    from data_tools.building.stages import Content, FilmJob, ReadJob
    from data_tools.building.staging import Staging
    from data_tools.execution.crews import crew_of
    from data_tools.execution.events import Done, Failed
    from data_tools.sources.inputs import discover

    staging = Staging(scratch)
    found, rows = discover(settings)
    films = {film.source: film for film in found.films}
    for one in wanted:
        if one.source not in films:
            progress.note(f"{one.source}: is not in the input any more")
    todo = [one for one in wanted if one.source in films]

    def follow(job: int, result: Any) -> tuple[str, Any] | None:
        one = todo[job]
        if not isinstance(result, Content) or result.film_id != one.film:
            return None
        film, known = films[one.source], rows[one.source]
        return TAKE, FilmJob(film, one.film, one.film, one.film, known, settings, staging)

    with crew_of(settings, scratch, progress.note) as crew:
        for event in crew.run(TAKE, (ReadJob(films[one.source], settings) for one in todo), follow):
            if not isinstance(event, Done | Failed):
                progress.advance(frames=event.amount)
                continue
            one, clips = todo[event.job], dict[str, bytes]()
            if isinstance(event, Failed):
                progress.note(f"{one.source}: {event.reason}")
            elif isinstance(event.result, Outcome):
                clips = _staged(staging, one)
                staging.forget(one.film)
            else:
                progress.note(f"{one.source}: {event.result.reason or 'its content is another one now'}")
            yield one, clips


def _staged(staging: Any, one: Wanted) -> dict[str, bytes]:
    """The wanted ones among the clips of a film that was made."""
    stretches = [staging.get_clip(one.film, name) for name in staging.clips(one.film).values()]
    keyed = {members_of(stretch)[0]: stretch for stretch in stretches if stretch is not None}
    return {key: stretch for key, stretch in keyed.items() if key in one.keys}
