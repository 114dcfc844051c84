"""Segmentation (Pathak et al., 2017, section 5): masks of uNLC, networks and implicit foreground against masks that people drew."""

from __future__ import annotations

import time
from pathlib import Path

from fbm_dist.evaluation.report.delivery import deliver, facts
from fbm_dist.evaluation.report.results import Results, Subject
from fbm_dist.evaluation.segmentation.config import Segmentation
from fbm_dist.evaluation.segmentation.figures import draw_sequences, draw_sheet
from fbm_dist.evaluation.segmentation.folders.find import find_sequences
from fbm_dist.evaluation.segmentation.folders.sequence import Sequence
from fbm_dist.evaluation.segmentation.measuring import Measured, measure_sequence
from fbm_dist.evaluation.segmentation.methods.chosen import methods_of
from fbm_dist.evaluation.segmentation.methods.implicit import ImplicitForeground
from fbm_dist.evaluation.segmentation.methods.method import Method
from fbm_dist.evaluation.segmentation.methods.network import ExportedNetwork
from fbm_dist.evaluation.segmentation.tables import by_data, by_sequence, details, limits, pooled, shares_kept
from fbm_dist.evaluation.world import join
from fbm_dist.registry.client import connect
from fbm_dist.training.distributed import World

NOTES = (
    "Brackets: 95 % interval, bootstrap over sequences (none for a single one).",
    "J: intersection over union of a frame, 1 where both masks are empty; J recall: share of frames with J above 0.5; F: of the "
    "outlines. Mean over a sequence's frames, then over sequences.",
    "Pooled figures are of one confusion matrix of all frames: large objects count more.",
)
SKIPPED = (
    "The published code of the paper's uNLC skips frames by their predicted foreground; the paper does not say whether its figures "
    "were made so: they stand in both halves. They are of DAVIS, FBMS and VSB together."
)


def evaluate(evaluation: Segmentation) -> Results:
    """Measure every method on the annotated frames of all sequences; sequences are dealt to the processes.

    Every rank calls it, alone or under a launcher; every rank gets the results. Scores are kept in OUTPUT/masks: the same command again
    goes on where it stopped.

    Raises:
        ValueError: what the user can put right, in one line.
    """
    began = time.monotonic()
    world = join(evaluation.device)
    with world.agreed():
        sequences = _sequences(evaluation)
        if evaluation.tracking.mlflow and world.first:
            connect(evaluation.tracking.uri)
    methods = methods_of(evaluation, world)
    frames = sum(len(sequence.truth) for sequence in sequences)
    world.say(f"{len(sequences)} sequences, {frames} annotated frames; {', '.join(_rows(methods))}")
    with world.agreed():
        own = [_measured(sequence, methods, evaluation, world) for sequence in dealt(sequences, world)]
    by_name = {(one.data, one.name): one for share in world.gather(own) for one in share}
    measured = [by_name[sequence.data, sequence.name] for sequence in sequences]
    data = ", ".join(map(str, evaluation.data))
    return deliver(
        evaluation, world, lambda: _assemble(evaluation, world, measured, methods, time.monotonic() - began), data=data
    )


def dealt(sequences: list[Sequence], world: World) -> list[Sequence]:
    """This rank's sequences: the longest are dealt first, so that all ranks have about as much to do."""
    longest = sorted(sequences, key=lambda sequence: -len(sequence.frames))
    return longest[world.rank :: world.size]


def _sequences(evaluation: Segmentation) -> list[Sequence]:
    return find_sequences(
        evaluation.data, evaluation.dataset, evaluation.split, evaluation.sequences, evaluation.max_frames
    )


def _measured(sequence: Sequence, methods: list[Method], evaluation: Segmentation, world: World) -> Measured:
    began = time.monotonic()
    found = measure_sequence(sequence, methods, evaluation.threshold, evaluation.output)
    told = ", ".join(f"{row} {100 * repetitions[0].iou.mean():.1f}" for row, repetitions in found.found.items())
    world.say(f"{sequence}: {len(sequence.truth)} frames, J: {told} ({time.monotonic() - began:.0f} s)")
    return found


def _assemble(
    evaluation: Segmentation, world: World, measured: list[Measured], methods: list[Method], seconds: float
) -> tuple[Results, list[Path]]:
    kept = evaluation.skip.low, evaluation.skip.high
    tables = [by_sequence(measured, _reference(methods)), pooled(measured, kept)]
    if len({one.data for one in measured}) > 1:
        tables.append(by_data(measured))
    subjects = {method.row: Subject(method.row, method.uri, method.model, method.sha256) for method in methods}
    seeds = f"{len(evaluation.seeds)} seeds" if len(evaluation.seeds) > 1 else "one seed"
    drawn = (
        (f"Random weights: {seeds}. Second line: difference to them, paired by sequence.",)
        if _reference(methods)
        else ()
    )
    first = () if evaluation.max_frames is None else (f"The first {evaluation.max_frames} frames of each sequence.",)
    results = Results(
        protocol="segmentation",
        title=f"Segmentation: {', '.join(dict.fromkeys(one.data for one in measured))}",
        subjects=tuple(subjects.values()),
        main=_main(methods).row,
        tables=tuple(tables),
        notes=(*first, *NOTES, *_sizes(evaluation), SKIPPED, _kept(measured, kept), *drawn),
        details={"sequences": details(measured)},
        facts=facts(evaluation, world, seconds),
    )
    files = [draw_sequences(measured, evaluation.output / "figure.png")]
    if evaluation.shown:
        files.append(draw_sheet(measured, evaluation.shown, evaluation.output / "sheet.png"))
    return results, files


def _kept(measured: list[Measured], kept: tuple[float, float]) -> str:
    """How many frames the second half of the pooled table is of."""
    told = ", ".join(f"{row} {100 * share:.0f} %" for row, share in shares_kept(measured, kept).items())
    return f"Frames whose predicted foreground is {limits(kept)}: {told}."


def _sizes(evaluation: Segmentation) -> list[str]:
    """At which size motion was computed."""
    told = f"frames of {evaluation.side} pixels at most (shorter side)"
    out = []
    if evaluation.unlc is not None:
        out.append(f"uNLC: {told}, which it works on at {evaluation.unlc.working_side} at most (longer side).")
    if "flow" in evaluation.baselines:
        out.append(f"Residual flow: {told}.")
    return out


def _rows(methods: list[Method]) -> list[str]:
    return list(dict.fromkeys(method.row for method in methods))


def _main(methods: list[Method]) -> Method:
    """What the evaluation is about: the first trained thing, else uNLC or what stands last."""
    trained = [method for method in methods if method.uri and method.uri != "random"]
    ranked = [
        *(m for m in trained if isinstance(m, ImplicitForeground)),
        *(m for m in trained if isinstance(m, ExportedNetwork)),
    ]
    return ranked[0] if ranked else methods[-1]


def _reference(methods: list[Method]) -> dict[str, str]:
    """Implicit foreground is compared with that of random weights in the same architecture, where there is one."""
    implicit = [method for method in methods if isinstance(method, ImplicitForeground)]
    random = {method.architecture: method.row for method in implicit if method.uri == "random"}
    return {
        method.row: random[method.architecture]
        for method in implicit
        if method.uri != "random" and method.architecture in random
    }
