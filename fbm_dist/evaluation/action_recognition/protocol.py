"""Action recognition (Lin et al., 2017, Table 1): linear softmax on the features, frozen and fine-tuned, against other encoders."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from fbm_dist.data.index.labels import choose_label
from fbm_dist.evaluation.action_recognition.config import ActionRecognition
from fbm_dist.evaluation.action_recognition.fine_tuning import Curve, fine_tune, window_of
from fbm_dist.evaluation.encoders.candidates import Candidate, candidates
from fbm_dist.evaluation.encoders.origin import seen_in_pretraining
from fbm_dist.evaluation.labelled.clips import labelled_clips
from fbm_dist.evaluation.measures.comparison import Column, mean_chance
from fbm_dist.evaluation.measures.probing import (
    ONE_SEED,
    Question,
    accuracy_table,
    all_features,
    answers,
    chance_of,
    decoded,
    linear,
    question,
    reference_of,
    scored,
)
from fbm_dist.evaluation.report.delivery import deliver, facts
from fbm_dist.evaluation.report.figure import bars, canvas, curves, save
from fbm_dist.evaluation.report.results import Cell, Results, Row, Subject, Table
from fbm_dist.evaluation.world import join
from fbm_dist.registry.client import connect
from fbm_dist.training.distributed import World

FINE_TUNED = "fine-tuned"
PROBE = "probe: "  # begins the columns of frozen features
PAPER = {"random initialisation": 52.2, "autoencoder": 56.8, "FBM": 62.5}  # Table 1: UCF-101, 24 classes, percent
PAPER_EPOCHS = {"random initialisation": 130.0, "FBM": 1.0}  # section 5: to 90 % accuracy on the training set
NINETY = 0.9


@dataclass
class Study:
    """An evaluation under way: what is fixed at the start, and what has been found so far (complete on rank 0)."""

    evaluation: ActionRecognition
    world: World
    tested: tuple[Candidate, ...]
    asked: Question
    columns: dict[str, Column] = field(default_factory=dict)
    training: dict[str, dict[str, list[Curve]]] = field(default_factory=dict)  # mode -> encoder -> a curve a training
    testing: dict[str, dict[str, list[Curve]]] = field(default_factory=dict)
    to_90: dict[str, dict[str, list[float | None]]] = field(default_factory=dict)  # likewise: epochs, None: never
    notes: list[str] = field(default_factory=list)


def evaluate(evaluation: ActionRecognition) -> Results:
    """Measure every encoder of `evaluation`: tables by clip and by film, epochs to 90 %, figure.png, MLflow.

    Every rank calls it, alone or under a launcher; every rank gets the results.

    Raises:
        ValueError: what the user can put right, in one line.
    """
    began = time.monotonic()
    world = join(evaluation.device)
    with world.agreed():
        study = _prepare(evaluation, world)
    clips = study.asked.clips
    world.say(f"{len(clips)} clips of {len(set(clips.film))} films, {len(clips.classes)} classes of {clips.label!r}")
    if evaluation.linear_probe is not None:
        _probe(study)
    if evaluation.fine_tuning is not None:
        for mode in evaluation.fine_tuning.modes:
            _fine_tune(study, mode)
    return deliver(
        evaluation, world, lambda: _assemble(study, time.monotonic() - began), data=str(evaluation.data.path)
    )


def _prepare(evaluation: ActionRecognition, world: World) -> Study:
    """Everything that can be refused, before anything is computed."""
    label = choose_label(evaluation.data, evaluation.label)
    tested = candidates(evaluation)
    if evaluation.tracking.mlflow and world.first:
        connect(evaluation.tracking.uri)
    clips = labelled_clips([candidate.data(evaluation.data, label) for candidate in tested], label)
    return Study(evaluation, world, tested, question(clips, evaluation))


def _probe(study: Study) -> None:
    """A column for each feature group; the clips that could not be decoded leave the study."""
    settings, world = study.evaluation.linear_probe, study.world
    assert settings is not None
    features = all_features(study.evaluation, study.tested, [study.asked], world)
    with world.agreed():
        there = decoded(features)
        lost = len(study.asked.clips)
        study.asked = study.asked.of(there, study.evaluation)
        lost -= len(study.asked.clips)
    if lost:
        study.notes.append(f"{lost} clips could not be decoded and are left out.")
    found = answers(study.asked, features, linear(settings), world)
    study.columns |= {f"{PROBE}{group}": column for group, column in found.columns.items()}
    study.notes.append(f"Linear probe: {study.asked.splits[0]}{_seeds(study)}.")
    if found.unconverged:
        study.notes.append(
            f"{found.unconverged} linear probes reached linear_probe.max_iterations before they had converged."
        )


def _fine_tune(study: Study, mode: str) -> None:
    """The column of a head trained by the trainer: the first folds, every seed, the same budget for every encoder."""
    settings, clips, split = study.evaluation.fine_tuning, study.asked.clips, study.asked.splits[0]
    assert settings is not None
    folds = split.folds[: settings.folds]
    found: dict[str, np.ndarray] = {}
    for candidate in study.tested:
        rows = np.full((len(study.evaluation.seeds), len(clips), len(clips.classes)), np.nan)
        for i, seed in enumerate(study.evaluation.seeds):
            for j, fold in enumerate(folds):
                told = f", fold {j + 1} of {len(folds)}" if len(folds) > 1 else ""
                study.world.say(f"{mode}: {candidate.name}, seed {seed}{told}, {settings.steps} steps")
                tuned = fine_tune(candidate, seed, clips, fold, study.evaluation, study.world, frozen=mode == "frozen")
                rows[i, fold.test] = tuned.probability[fold.test]
                study.training.setdefault(mode, {}).setdefault(candidate.name, []).append(tuned.training)
                study.testing.setdefault(mode, {}).setdefault(candidate.name, []).append(tuned.testing)
                study.to_90.setdefault(mode, {}).setdefault(candidate.name, []).append(tuned.to_90)
        found[candidate.name] = rows
    study.columns[mode] = Column(found, mean_chance(clips, folds))
    which = str(split)
    if len(folds) < len(split.folds):
        tested = sorted({*clips.group[np.concatenate([fold.test for fold in folds])].tolist()})
        shown = f"{', '.join(tested[:6])}{' ...' if len(tested) > 6 else ''}"
        which = f"{len(folds)} of the {len(split.folds)} folds only, tested on {shown}"
    number = round(np.mean([len(fold.train) for fold in folds]))
    epochs = settings.steps * settings.global_batch / number
    study.notes.append(
        f"{mode.capitalize()}: {which}; {settings.steps} steps of {settings.global_batch} clips ({epochs:.1f} epochs of "
        f"{number} clips) for every encoder{_seeds(study)}."
    )
    window = window_of(number, settings.global_batch)
    span = f"the mean over {window} steps ({window * settings.global_batch / number:.1f} epochs)"
    if settings.steps < window:
        del study.to_90[mode]
        study.notes.append(f"{mode.capitalize()}: too short for epochs to 90 %, which are told by {span}.")
    else:
        study.notes.append(f"{mode.capitalize()}: training accuracy is {span}; no training comes to 90 % before.")


def _assemble(study: Study, seconds: float) -> tuple[Results, Sequence[Path]]:
    clips, evaluation = study.asked.clips, study.evaluation
    tested = study.asked.tested
    results = Results(
        protocol=evaluation.protocol,
        title=f"Action recognition: {clips.label} ({len(clips.classes)} classes) of {evaluation.data.path.name}",
        subjects=tuple(Subject.of(c, seen_in_pretraining(c, tested, evaluation.data)) for c in study.tested),
        main=next(candidate.name for candidate in study.tested if candidate.uri == evaluation.encoder),
        tables=tuple(_tables(study)),
        notes=tuple(_notes(study)),
        details={
            "label": clips.label,
            "classes": list(clips.classes),
            "training_accuracy": study.training,  # mode -> encoder -> [(epoch, accuracy), ...] a training
            "test_accuracy": study.testing,
            "epochs_to_90": study.to_90,
        },
        facts=facts(evaluation, study.world, seconds, split=str(study.asked.splits[0])),
    )
    return results, [_draw(results, study, evaluation.output / "figure.png")]


def _tables(study: Study) -> list[Table]:
    """By clip; by film where films have several clips; epochs to 90 % where something was fine-tuned."""
    clips, reference = study.asked.clips, reference_of(study.tested)
    compared = {name: scored(column, clips, reference) for name, column in study.columns.items()}
    chance = {name: column.chance for name, column in study.columns.items()}
    clip = accuracy_table("clip", "by clip", "clip", study.tested, compared, chance)
    if FINE_TUNED in compared:
        clip = replace(clip, rows=(*clip.rows, *(_paper(name, value / 100) for name, value in PAPER.items())))
    out = [clip]
    if any(found.counts[0] != found.counts[1] for found in compared.values()):
        by_film = chance_of(study.asked, "film")
        chance = {name: by_film for name in chance if name.startswith(PROBE)}  # the others test some folds only
        out.append(accuracy_table("film", "by film", "film", study.tested, compared, chance))
    return out + ([_to_ninety(study)] if study.to_90 else [])


def _paper(name: str, value: float) -> Row:
    return Row(f"paper: {name}", {FINE_TUNED: Cell.of(value)}, "paper")


def _to_ninety(study: Study) -> Table:
    """Epochs until 90 % of the training clips are classified right: the mean of the trainings that came to it."""
    rows = []
    for name in (candidate.name for candidate in study.tested):
        cells = {}
        for mode, by_name in study.to_90.items():
            epochs = by_name[name]
            came = [epoch for epoch in epochs if epoch is not None]
            if came:
                cells[mode] = Cell.of(float(np.mean(came)))
            if len(came) < len(epochs):
                told = f"{name}: {len(epochs) - len(came)} of {len(epochs)} trainings ({mode}) never came to 90 %."
                if told not in study.notes:
                    study.notes.append(told)
        rows.append(Row(name, cells))
    if FINE_TUNED in study.to_90:
        rows += [_paper(name, value) for name, value in PAPER_EPOCHS.items()]
    modes = tuple(study.to_90)
    return Table(
        "epochs_to_90", "epochs to 90 % training accuracy", "epochs", modes, tuple(rows), better="lower", scale=1.0
    )


def _notes(study: Study) -> list[str]:
    brackets = (
        "Brackets: 95 % interval, bootstrap over groups and seeds (none where one group is tested). Second line: "
        f"difference to {reference_of(study.tested)}, paired by group."
    )
    paper = ["The paper's rows: the 24 classes of UCF-101 that have boxes."] if FINE_TUNED in study.columns else []
    return [brackets, *study.notes, *([ONE_SEED] if len(study.evaluation.seeds) == 1 else []), *paper]


def _draw(results: Results, study: Study, path: Path) -> Path:
    """Bars of the accuracies; for each mode of fine-tuning its curves: training accuracy, and test accuracy as in Figure 3."""
    panels = [
        (mode, what, found[mode])
        for mode in study.training
        for what, found in (("training batches", study.training), ("test clips", study.testing))
        if any(curve for by_name in found[mode].values() for curve in by_name)  # looks=0: no curve of test clips
    ]
    figure = canvas(7 + 5 * len(panels), 4.5)
    first, *others = figure.subplots(1, 1 + len(panels), squeeze=False, width_ratios=[1.4, *[1] * len(panels)])[0]
    bars(first, results.table("clip"))
    for panel, (mode, what, found) in zip(others, panels, strict=True):
        curves(panel, found, f"epoch ({mode})", f"accuracy on {what}")
        panel.axhline(NINETY, color="k", linestyle=":", linewidth=0.8)
        panel.set_ylim(0, 1.02)
    return save(figure, path)


def _seeds(study: Study) -> str:
    count = len(study.evaluation.seeds)
    return f", mean of {count} seeds" if count > 1 else ""
