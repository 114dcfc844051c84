"""Quick probes: what labels can be read from every named feature group, without training an encoder."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fbm_dist.data.index.labels import choose_label
from fbm_dist.evaluation.encoders.candidates import Candidate, candidates
from fbm_dist.evaluation.encoders.origin import seen_in_pretraining
from fbm_dist.evaluation.labelled.clips import labelled_clips
from fbm_dist.evaluation.measures.comparison import Compared
from fbm_dist.evaluation.measures.probing import (
    ONE_SEED,
    Method,
    Question,
    Unit,
    accuracy_table,
    all_features,
    all_tested,
    answers,
    chance_of,
    decoded,
    linear,
    question,
    reference_of,
    scored,
    told,
)
from fbm_dist.evaluation.probes.config import Probes
from fbm_dist.evaluation.probes.neighbours import nearest
from fbm_dist.evaluation.report.delivery import deliver, facts
from fbm_dist.evaluation.report.figure import bars, canvas, save
from fbm_dist.evaluation.report.results import Results, Subject, Table, metric_name
from fbm_dist.evaluation.world import join
from fbm_dist.registry.client import connect
from fbm_dist.training.distributed import World

KNN, LINEAR = "knn", "linear"
TOLD = {KNN: "k nearest neighbours", LINEAR: "linear probe"}


@dataclass
class _Study:
    """An evaluation under way."""

    evaluation: Probes
    world: World
    tested: tuple[Candidate, ...]
    questions: tuple[Question, ...]
    methods: dict[str, Method]
    compared: dict[tuple[str, str], dict[str, Compared]] = field(default_factory=dict)  # (label, method) -> by group
    notes: list[str] = field(default_factory=list)


def evaluate(evaluation: Probes) -> Results:
    """Probe every encoder for every label; a table a label, method and unit (clip, film), a column a feature group.

    Every rank calls it, alone or under a launcher; every rank gets the results.

    Raises:
        ValueError: what the user can put right, in one line.
    """
    began = time.monotonic()
    world = join(evaluation.device)
    with world.agreed():
        study = _prepare(evaluation, world)
    for asked in study.questions:
        clips = asked.clips
        films = len(set(clips.film.tolist()))
        world.say(f"{clips.label}: {len(clips)} clips of {films} films, {len(clips.classes)} classes")
    features = all_features(evaluation, study.tested, study.questions, world)
    keys = decoded(features)
    with world.agreed():
        lost = sum(len({*asked.clips.key.tolist()} - keys) for asked in study.questions)
        study.questions = tuple(asked.of(keys, evaluation) for asked in study.questions)
    if lost:
        study.notes.append(f"{lost} clips could not be decoded and are left out.")
    for asked in study.questions:
        for name, method in study.methods.items():
            found = answers(asked, features, method, world)
            reference = reference_of(study.tested)
            study.compared[asked.clips.label, name] = {
                group: scored(column, asked.clips, reference) for group, column in found.columns.items()
            }
            world.say(f"{TOLD[name]}: {asked.clips.label}")
            if found.unconverged:
                study.notes.append(
                    f"{asked.clips.label}: {found.unconverged} linear probes reached linear_probe.max_iterations before "
                    "they had converged."
                )
    return deliver(
        evaluation, world, lambda: _assemble(study, time.monotonic() - began), data=str(evaluation.data.path)
    )


def _prepare(evaluation: Probes, world: World) -> _Study:
    """Everything that can be refused, before anything is computed."""
    if evaluation.labels:
        labels = [choose_label(evaluation.data, label, "labels") for label in evaluation.labels]
    else:
        labels = [choose_label(evaluation.data, evaluation.label)]
    tested = candidates(evaluation)
    if evaluation.tracking.mlflow and world.first:
        connect(evaluation.tracking.uri)
    questions = []
    for label in labels:
        clips = labelled_clips([candidate.data(evaluation.data, label) for candidate in tested], label)
        questions.append(question(clips, evaluation))
    methods: dict[str, Method] = {}
    if evaluation.neighbours is not None:
        methods[KNN] = nearest(evaluation.neighbours)
    if evaluation.linear_probe is not None:
        methods[LINEAR] = linear(evaluation.linear_probe)
    return _Study(evaluation, world, tested, tuple(questions), methods)


def _assemble(study: _Study, seconds: float) -> tuple[Results, list[Path]]:
    evaluation, path = study.evaluation, study.evaluation.data.path
    seen = all_tested(study.questions)
    tables = tuple(_tables(study))
    results = Results(
        protocol="probes",
        title=f"Probes of {path.name}",
        subjects=tuple(Subject.of(c, seen_in_pretraining(c, seen, evaluation.data)) for c in study.tested),
        main=next(c.name for c in study.tested if c.uri == evaluation.encoder),
        tables=tables,
        notes=(*_how(study), *study.notes),
        details={"labels": {asked.clips.label: _facts(asked) for asked in study.questions}},
        facts=facts(evaluation, study.world, seconds, split=str(study.questions[0].splits[0])),
    )
    return results, [_draw(tables, evaluation.output / "figure.png")]


def _tables(study: _Study) -> list[Table]:
    """For each label and method by clip and by film; the label is part of the name where there are several."""
    out = []
    units: tuple[Unit, ...] = ("clip", "film")
    for asked in study.questions:
        label = asked.clips.label
        prefix = f"{metric_name(label)}." if len(study.questions) > 1 else ""
        for method in study.methods:
            for unit in units:
                heading = f"{label} ({len(asked.clips.classes)} classes): {TOLD[method]}, by {unit}"
                by_group = study.compared[label, method]
                chance = dict.fromkeys(by_group, chance_of(asked, unit))
                out.append(accuracy_table(f"{prefix}{method}.{unit}", heading, unit, study.tested, by_group, chance))
    return out


def _how(study: _Study) -> list[str]:
    """What was done, in sentences."""
    evaluation, out = study.evaluation, []
    seeds = len(evaluation.seeds)
    if evaluation.neighbours is not None:
        k, temperature = evaluation.neighbours.k, evaluation.neighbours.temperature
        out.append(f"k nearest neighbours: k {k}, by cosine similarity, votes weighted with temperature {temperature}.")
    if evaluation.linear_probe is not None:
        out.append(f"Linear probe: logistic regression on standardised features, C {evaluation.linear_probe.c}.")
    out += [told(asked) for asked in study.questions]
    if len(study.tested) > 1:
        out.append(f"Second lines: the difference to {reference_of(study.tested)}, paired.")
    return [*out, *([ONE_SEED] if seeds == 1 else [])]


def _facts(asked: Question) -> dict[str, Any]:
    return {"classes": list(asked.clips.classes), "clips": len(asked.clips), "split": str(asked.splits[0])}


def _draw(tables: tuple[Table, ...], path: Path) -> Path:
    """Bars by clip: a row of axes a label, one a method."""
    shown = [table for table in tables if table.name.endswith("clip")]
    across = len({table.name.split(".")[-2] for table in shown})
    down = len(shown) // across
    figure = canvas(6.2 * across, 3.6 * down)
    for i, table in enumerate(shown):
        axes = figure.add_subplot(down, across, i + 1)
        bars(axes, table)
        axes.set_title(table.heading, fontsize="medium")
    return save(figure, path)
