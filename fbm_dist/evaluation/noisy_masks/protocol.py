"""The same pretraining with better and worse masks, and with less data: what FBM leaves open, and Pathak et al. (2017), Figures 5, 8b."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from fbm_dist.data.index.index import Index
from fbm_dist.data.index.labels import choose_label
from fbm_dist.data.index.selection import select
from fbm_dist.evaluation.encoders.candidates import RANDOM, Candidate, found
from fbm_dist.evaluation.encoders.features import Features, extract
from fbm_dist.evaluation.encoders.origin import seen_in_pretraining
from fbm_dist.evaluation.labelled.clips import labelled_clips
from fbm_dist.evaluation.measures.comparison import Column
from fbm_dist.evaluation.measures.probing import (
    ONE_SEED,
    Question,
    accuracy_table,
    answers,
    chance_of,
    decoded,
    linear,
    question,
    reference_of,
    scored,
    told,
)
from fbm_dist.evaluation.noisy_masks.config import RANDOM_NAME, NoisyMasks, share_name
from fbm_dist.evaluation.noisy_masks.figure import FILMS, draw
from fbm_dist.evaluation.noisy_masks.quality import mask_quality
from fbm_dist.evaluation.noisy_masks.runs import Trial, check_same_clips, run_of
from fbm_dist.evaluation.report.delivery import deliver, facts
from fbm_dist.evaluation.report.results import Cell, Look, Results, Row, Subject, Table
from fbm_dist.evaluation.world import interrupted, join
from fbm_dist.registry.client import connect
from fbm_dist.schema import ClipSpec, Data, Run
from fbm_dist.training.distributed import World
from fbm_dist.training.trainer import Summary

Pretrain = Callable[[Run], Summary]


@dataclass
class Study:
    """The study under way."""

    evaluation: NoisyMasks
    world: World
    runs: dict[str, list[Run]]  # by trial: one a seed
    trials: tuple[Trial, ...]
    asked: Question
    features: dict[str, list[Features]] = field(default_factory=dict)
    candidates: list[Candidate] = field(default_factory=list)
    columns: dict[str, Column] = field(default_factory=dict)  # by feature group
    quality: dict[str, float] = field(default_factory=dict)
    films: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def evaluate(evaluation: NoisyMasks, pretrain: Pretrain) -> Results:
    """Pretrain every variant with every seed, probe the encoders: a table and a plot by masks, and by amount of data.

    Every rank calls it. Runs lie in evaluation.output/pretraining; the same call again goes on where it stopped.

    Args:
        pretrain: `fbm_dist.run.pretrain`.
    Raises:
        ValueError: what the user can put right, in one line.
    """
    began = time.monotonic()
    world = join(evaluation.device)
    with world.agreed():
        study = _prepare(evaluation, world)
    for trial in study.trials:
        for run in study.runs[trial.name]:
            world.say(f"pretraining: {trial.name}, seed {run.run.seed}: {run.run.folder}")
            summary = pretrain(run)
            if summary.interrupted:
                raise interrupted("pretraining", summary.steps)
    _probe_all(study)
    return deliver(
        evaluation, world, lambda: _assemble(study, time.monotonic() - began), data=str(evaluation.data.path)
    )


def _prepare(evaluation: NoisyMasks, world: World) -> Study:
    """Everything that can be refused, before anything is computed."""
    label = choose_label(evaluation.data, evaluation.label)
    trials = tuple(Trial(variant.name, variant) for variant in evaluation.variants)
    trials += tuple(Trial(share_name(share), evaluation.shared, share) for share in evaluation.shares)
    runs = {trial.name: [run_of(evaluation, trial, seed) for seed in evaluation.seeds] for trial in trials}
    films, whole = {}, {}
    for trial in trials:
        data = runs[trial.name][0].data
        index = Index.open(data.path, data.snapshot)
        kept = select(index, data.filter, data.clip).kept
        films[trial.name] = len(np.unique(index.rows["film"][kept]))
        if trial.share == 1:
            whole[trial.name] = kept
    check_same_clips(whole)
    if evaluation.tracking.mlflow and world.first:
        connect(evaluation.tracking.uri)
    spec: ClipSpec = runs[trials[0].name][0].data.clip
    clips = labelled_clips([_probed(evaluation.data, spec, label)], label)
    return Study(evaluation, world, runs, trials, question(clips, evaluation), films=films)


def _probed(data: Data, spec: ClipSpec, label: str) -> Data:
    chosen = data.filter.model_copy(update={"labelled": label})
    return data.model_copy(update={"clip": spec.pictures, "filter": chosen})


def _probe_all(study: Study) -> None:
    """Features of every encoder, and of as many random ones; how good each variant's masks were."""
    evaluation, world, label = study.evaluation, study.world, study.asked.clips.label
    tracking = evaluation.tracking.uri
    for name in [RANDOM_NAME, *(trial.name for trial in study.trials)]:
        for i, seed in enumerate(evaluation.seeds):
            with world.agreed():
                family = study.runs[study.trials[0].name][0].objective
                uri = RANDOM if name == RANDOM_NAME else str(study.runs[name][i].run.folder)
                (candidate,) = found([uri], family, tracking)  # type: ignore[arg-type]
                encoder = candidate.encoder(seed)
            data = _probed(evaluation.data, study.runs[study.trials[0].name][0].data.clip, label)
            features = extract(encoder, data, batch=evaluation.batch, world=world, name=f"{name}, seed {seed}")
            study.features.setdefault(name, []).append(features)
        study.candidates.append(replace(candidate, name=name))
        world.say(f"features: {name}, {len(evaluation.seeds)} seeds")
    with world.agreed():
        before = len(study.asked.clips)
        study.asked = study.asked.of(decoded(study.features), evaluation)
    if len(study.asked.clips) < before:
        study.notes.append(f"{before - len(study.asked.clips)} clips could not be decoded and are left out.")
    answered = answers(study.asked, study.features, linear(evaluation.linear_probe), world)
    study.columns = answered.columns
    if answered.unconverged:
        study.notes.append(
            f"{answered.unconverged} probes reached linear_probe.max_iterations before they had converged."
        )
    for trial in study.trials:
        if trial.share == 1:
            data = study.runs[trial.name][0].data
            looked = data.model_copy(update={"clip": data.clip.plain.model_copy(update={"truth": True})})
            quality = mask_quality(looked, evaluation.batch, world)
            if quality is not None:
                study.quality[trial.name] = quality


def _assemble(study: Study, seconds: float) -> tuple[Results, Sequence[Path]]:
    evaluation = study.evaluation
    asked, reference = study.asked, reference_of(study.candidates)
    compared = {f"probe: {group}": scored(column, asked.clips, reference) for group, column in study.columns.items()}
    chance = dict.fromkeys(compared, chance_of(asked, "clip"))
    by_name = {candidate.name: candidate for candidate in study.candidates}
    masks = [by_name[RANDOM_NAME], *(by_name[variant.name] for variant in evaluation.variants)]
    tables = [accuracy_table("clip", "by the masks of pretraining", "clip", masks, compared, chance)]
    tables[0] = _with_quality(tables[0], study.quality)
    if evaluation.shares:
        less = [trial for trial in study.trials if trial.share < 1]
        whole = Trial(evaluation.shared.name, evaluation.shared)
        order = [*sorted(less, key=lambda trial: trial.share), whole]
        rows = [by_name[RANDOM_NAME], *(by_name[trial.name] for trial in order)]
        table = accuracy_table("amount", "by the films of pretraining", "clip", rows, compared, chance)
        tables.append(_with_films(table, study.films))
    results = Results(
        protocol=evaluation.protocol,
        title=f"Masks and data: {asked.clips.label} of {evaluation.data.path.name}",
        subjects=tuple(_subject(candidate, study) for candidate in study.candidates),
        main=evaluation.shared.name,
        tables=tuple(tables),
        notes=tuple(_notes(study)),
        details={"mask_iou": study.quality, "films": study.films},
        facts=facts(evaluation, study.world, seconds, split=str(asked.splits[0])),
    )
    return results, [draw(results, evaluation.output / "figure.png")]


def _subject(candidate: Candidate, study: Study) -> Subject:
    """Of several seeds no one checksum holds."""
    seen = seen_in_pretraining(candidate, study.asked.tested, study.evaluation.data)
    subject = Subject.of(candidate, seen)
    return subject if len(study.evaluation.seeds) == 1 else replace(subject, sha256=None)


def _with_quality(table: Table, quality: dict[str, float]) -> Table:
    """With a first column: how good the masks were."""
    if not quality:
        return table
    column = "masks: IoU with truth"
    rows = [
        Row(row.name, {column: Cell.of(quality[row.name]), **row.cells} if row.name in quality else row.cells, row.kind)
        for row in table.rows
    ]
    return replace(table, columns=(column, *table.columns), rows=tuple(rows))


def _with_films(table: Table, films: dict[str, int]) -> Table:
    """With a first column: how many films were pretrained on."""
    rows = [
        Row(row.name, {FILMS: Cell.of(films[row.name]), **row.cells} if row.name in films else row.cells, row.kind)
        for row in table.rows
    ]
    looks = {FILMS: Look("neither", 1.0, 0)}
    return replace(table, columns=(FILMS, *table.columns), rows=tuple(rows), looks=looks)


def _notes(study: Study) -> list[str]:
    evaluation = study.evaluation
    training = study.runs[study.trials[0].name][0].training
    length = f"{training.steps} steps" if training.steps else f"{training.epochs} epochs"
    seeds = len(evaluation.seeds)
    return [
        f"Every row: {evaluation.pretraining.config.name}, {length} of {training.global_batch} clips, "
        f"{seeds} seed{'s' if seeds > 1 else ''}; linear probe of the frozen features.",
        told(study.asked),
        *study.notes,
        f"Second line: difference to {RANDOM_NAME}, paired by group.",
        *([ONE_SEED] if seeds == 1 else []),
        *(
            ["The fewer films of pretraining, the fewer of the probed films were among them."]
            if evaluation.shares
            else []
        ),
    ]
