"""The leaderboard: several encoders through several protocols, one table; what is finished is read back, not run again."""

from __future__ import annotations

import time
from pathlib import Path

from fbm_dist import evaluation as protocols
from fbm_dist.evaluation.leaderboard.board import merge, subjects
from fbm_dist.evaluation.leaderboard.config import Leaderboard
from fbm_dist.evaluation.leaderboard.page import write_page
from fbm_dist.evaluation.leaderboard.parts import Resolved, chosen, finished, main_encoder, mark_finished, resolve
from fbm_dist.evaluation.measures.probing import reference_of
from fbm_dist.evaluation.report.delivery import deliver, facts
from fbm_dist.evaluation.report.results import Results
from fbm_dist.evaluation.world import join
from fbm_dist.registry.client import connect
from fbm_dist.training.distributed import World, agreed

Found = dict[str, tuple[Resolved, Results]]  # by the title of the part


def evaluate(board: Leaderboard) -> Results:
    """Run every protocol that has no finished results yet, merge their tables, write table.md, leaderboard.html, results.json.

    A protocol that fails does not take the others with it: their table is written before the error is raised. The same command
    again runs what is missing. Every rank calls it, alone or under a launcher; every rank gets the results.

    Raises:
        ConfigError: a protocol's config cannot be used; before anything is computed.
        ValueError: an encoder or a data set is not there (before anything is computed), or a protocol failed (at the end).
    """
    began = time.monotonic()
    world = join(board.device)
    with world.agreed():
        if board.tracking.mlflow and world.first:
            connect(board.tracking.uri)
        resolved = [resolve(board, part) for part in board.protocols]
    found: Found = {}
    failed: dict[str, str] = {}
    for i, one in enumerate(resolved):
        title = one.part.title
        world.say(f"{title} ({i + 1} of {len(resolved)} protocols): {one.part.config}")
        answer = _results(one, world)
        if isinstance(answer, Results):
            found[title] = (one, answer)
        else:
            failed[title] = answer
            world.say(f"{title} failed: {answer}")
    results: Results | None = None
    if found:
        results = deliver(board, world, lambda: _assemble(board, world, found, failed, time.monotonic() - began))
    if failed:
        first, why = next(iter(failed.items()))
        rest = f"the table of the others is in {board.output}; " if found else ""
        raise agreed(
            f"{len(failed)} of {len(resolved)} protocols failed ({', '.join(failed)}); {rest}the same command runs what "
            f"is missing; {first}: {why}"
        )
    assert results is not None, "there is a protocol, and it has not failed"
    return results


def _results(one: Resolved, world: World) -> Results | str:
    """The part's results, computed or read back; or what is wrong, where it fails in a way that the others can outlive."""
    error: Exception | None = None
    try:
        stored = None
        with world.agreed():
            if world.first:
                stored = finished(one)
        results = world.broadcast(stored)
        if results is not None:
            world.say(f"{one.part.title}: finished before; read from {one.folder}")
        else:
            results = protocols.evaluate(one.evaluation)
            with world.agreed():
                if world.first:
                    mark_finished(one)
        with world.agreed():
            chosen(one.part, results)
        return results
    except Exception as caught:
        error = caught
    if getattr(error, "interrupted", False) or (world.size > 1 and not getattr(error, "agreed", False)):
        raise error  # asked to stop; or the other ranks know nothing of it: there is no going on together
    if not all(world.gather(isinstance(error, ValueError | OSError))):
        raise error  # a fault of the program
    return " ".join(str(world.broadcast(error)).split())


def _assemble(
    board: Leaderboard, world: World, found: Found, failed: dict[str, str], seconds: float
) -> tuple[Results, list[Path]]:
    who = subjects(board.encoders, found)
    reference = reference_of(next(iter(found.values()))[0].tested)
    title = f"Leaderboard: {len(who)} encoder{'s' if len(who) > 1 else ''}, {len(found)} protocol{'s' if len(found) > 1 else ''}"
    results = Results(
        protocol="leaderboard",
        title=title,
        subjects=tuple(who),
        main=next(subject.name for subject in who if subject.uri == main_encoder(board)),
        tables=(merge(board.encoders, found),),
        notes=(
            *(
                f"{title}: {results.title}; {one.folder / 'table.md'} says how."
                for title, (one, results) in found.items()
            ),
            *(f"{title}: failed: {why}." for title, why in failed.items()),
            *([f"Second lines: the difference to {reference}, paired."] if len(who) > 1 else []),
        ),
        details={"failed": failed},
        facts=facts(board, world, seconds, identities={title: one.identity for title, (one, _) in found.items()}),
    )
    return results, [write_page(results, found, failed, board.output)]
