"""The disentanglement matrix: linear probes of every named feature group for every known factor, several encoders beside each other."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from fbm_dist.data.index.index import Index
from fbm_dist.data.index.labels import choose_label
from fbm_dist.evaluation.disentanglement.config import Disentanglement
from fbm_dist.evaluation.disentanglement.figure import draw
from fbm_dist.evaluation.disentanglement.study import Study
from fbm_dist.evaluation.disentanglement.summary import EXPECTED
from fbm_dist.evaluation.disentanglement.tables import MARK, by_group, matrices, summary
from fbm_dist.evaluation.encoders.candidates import candidates
from fbm_dist.evaluation.encoders.origin import seen_in_pretraining
from fbm_dist.evaluation.labelled.clips import labelled_clips
from fbm_dist.evaluation.measures.probing import (
    ONE_SEED,
    all_features,
    all_tested,
    answers,
    decoded,
    linear,
    question,
    scored,
    told,
)
from fbm_dist.evaluation.report.delivery import deliver, facts
from fbm_dist.evaluation.report.results import Results, Subject
from fbm_dist.evaluation.world import join
from fbm_dist.registry.client import connect
from fbm_dist.training.distributed import World


def evaluate(evaluation: Disentanglement) -> Results:
    """Measure the matrix of every encoder and what it comes to; every rank calls it, every rank gets the results.

    Raises:
        ValueError: what the user can put right, in one line.
    """
    began = time.monotonic()
    world = join(evaluation.device)
    with world.agreed():
        study = _prepare(evaluation, world)
    for asked in study.questions:
        world.say(f"{asked.clips.label}: {len(asked.clips)} clips, {len(asked.clips.classes)} classes")
    features = all_features(evaluation, study.tested, study.questions, world)
    keys = decoded(features)
    with world.agreed():
        lost = len(set().union(*(asked.clips.key.tolist() for asked in study.questions)) - keys)
        study.questions = tuple(asked.of(keys, evaluation) for asked in study.questions)
    if lost:
        study.notes.append(f"{lost} clips could not be decoded and are left out.")
    unconverged = 0
    for asked in study.questions:
        found = answers(asked, features, linear(evaluation.linear_probe), world)
        study.columns[asked.clips.label] = found.columns
        study.compared[asked.clips.label] = {
            group: scored(column, asked.clips, study.reference) for group, column in found.columns.items()
        }
        unconverged += found.unconverged
        world.say(f"linear probes: {asked.clips.label}")
    if unconverged:
        study.notes.append(
            f"{unconverged} linear probes reached linear_probe.max_iterations before they had converged."
        )
    return deliver(
        evaluation, world, lambda: _assemble(study, time.monotonic() - began), data=str(evaluation.data.path)
    )


def _prepare(evaluation: Disentanglement, world: World) -> Study:
    """Everything that can be refused, before anything is computed."""
    tested = candidates(evaluation)
    if evaluation.tracking.mlflow and world.first:
        connect(evaluation.tracking.uri)
    data = evaluation.data
    given = bool(evaluation.factors)
    names = evaluation.factors or tuple(Index.open(data.path, data.snapshot).label_names)
    if not names:
        raise ValueError(f"{data.path}: no clip has a label; prepare the films with a labels.csv beside them")
    questions, left_out = [], []
    for name in names:
        try:
            choose_label(data, name, "factors")
            clips = labelled_clips([candidate.data(data, name) for candidate in tested], name)
            questions.append(question(clips, evaluation))
        except ValueError as error:
            if given:
                raise
            left_out.append(f"{name} is left out: {error}.")
    if not questions:
        raise ValueError(f"{data.path}: none of its labels can be probed: {' '.join(left_out)}")
    return Study(evaluation, world, tested, tuple(questions), left_out)


def _assemble(study: Study, seconds: float) -> tuple[Results, list[Path]]:
    evaluation, path = study.evaluation, study.evaluation.data.path
    seen = all_tested(study.questions)
    found = {
        candidate.name: {
            group: {
                factor: study.compared[factor][group].clip[candidate.name].value.mean
                for factor in study.factors
                if candidate.name in study.compared[factor][group].clip
            }
            for group in study.groups
        }
        for candidate in study.tested
    }
    results = Results(
        protocol="disentanglement",
        title=f"Disentanglement of {', '.join(study.factors)} in {path.name}",
        subjects=tuple(Subject.of(c, seen_in_pretraining(c, seen, evaluation.data)) for c in study.tested),
        main=next(c.name for c in study.tested if c.uri == evaluation.encoder),
        tables=(*summary(study), *matrices(study), *by_group(study)),
        notes=tuple(_notes(study)),
        details={
            "matrix": found,
            "chance": study.chance,
            "classes": {asked.clips.label: list(asked.clips.classes) for asked in study.questions},
        },
        facts=facts(evaluation, study.world, seconds, split=str(study.questions[0].splits[0])),
    )
    figure = draw(found, study.chance, study.known(evaluation.expected), evaluation.output / "figure.png")
    return results, [figure]


def _notes(study: Study) -> list[str]:
    """What must be known to read the tables."""
    evaluation = study.evaluation
    expected = study.known(evaluation.expected)
    probe = evaluation.linear_probe
    out = [
        f"Linear probe: logistic regression on standardised features, C {probe.c}; groups have different numbers of features."
    ]
    out += [told(asked) for asked in study.questions]
    if expected:
        which = ", ".join(f"{factor} from {group}" for factor, group in expected.items())
        out.append(f"{MARK} expected: {which}; bold: the group that tells most of a factor.")
        out.append(
            f"{EXPECTED}: the mean accuracy of the cells marked {MARK}; separation: what they are above the best other group."
        )
    out += [*_unmeasured(study, "expected", evaluation.expected), *_unmeasured(study, "leaks", evaluation.leaks)]
    if study.known(evaluation.leaks):
        out.append(
            "leak: (accuracy - chance) / (1 - chance) from a group that should not tell of the factor; 0 is best."
        )
    if len(study.tested) > 1:
        out.append(f"Second lines: the difference to {study.reference}, paired.")
    return [*out, *study.notes, *([ONE_SEED] if len(evaluation.seeds) == 1 else [])]


def _unmeasured(study: Study, key: str, pairs: Mapping[str, str]) -> Iterator[str]:
    """What the config names and the data or the encoders do not have."""
    for factor, group in pairs.items():
        if factor not in study.factors:
            yield f"{key}: {factor} is not measured: it is none of the factors ({', '.join(study.factors)})."
        elif group not in study.groups:
            yield f"{key}: {factor} from {group} is not measured: the groups of features are {', '.join(study.groups)}."
