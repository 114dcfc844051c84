"""The same pretraining with better and worse masks, and with less data: what FBM leaves open, and Pathak et al. (2017), Figures 5, 8b."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from fbm_dist.config import load
from fbm_dist.data.index.index import Index
from fbm_dist.data.index.labels import choose_label
from fbm_dist.data.index.selection import digest, select
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
from fbm_dist.evaluation.noisy_masks.config import RANDOM_NAME, NoisyMasks, Variant
from fbm_dist.evaluation.noisy_masks.figure import FILMS, draw
from fbm_dist.evaluation.noisy_masks.quality import mask_quality
from fbm_dist.evaluation.report.delivery import deliver, facts
from fbm_dist.evaluation.report.results import Cell, Look, Results, Row, Subject, Table
from fbm_dist.evaluation.world import interrupted, join
from fbm_dist.registry.client import connect
from fbm_dist.schema import ClipSpec, Data, Filter, Run, RunFolder
from fbm_dist.training.distributed import World
from fbm_dist.training.trainer import Summary

Pretrain = Callable[[Run], Summary]


@dataclass(frozen=True)
class Trial:
    """One row: a pretraining that is repeated with every seed.

    Attributes:
        name: of its row.
        variant: its masks.
        share: of the groups that it is pretrained on.
    """

    name: str
    variant: Variant
    share: float = 1.0


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
    trials += tuple(Trial(f"{share:.4g} of the films", evaluation.shared, share) for share in evaluation.shares)
    runs = {trial.name: [_run(evaluation, trial, seed) for seed in evaluation.seeds] for trial in trials}
    films, whole = {}, {}
    for trial in trials:
        data = runs[trial.name][0].data
        index = Index.open(data.path, data.snapshot)
        kept = select(index, data.filter, data.clip).kept
        films[trial.name] = len(np.unique(index.rows["film"][kept]))
        if trial.share == 1:
            whole[trial.name] = kept
    _check_same_clips(whole)
    if evaluation.tracking.mlflow and world.first:
        connect(evaluation.tracking.uri)
    spec: ClipSpec = runs[trials[0].name][0].data.clip
    clips = labelled_clips([_probed(evaluation.data, spec, label)], label)
    return Study(evaluation, world, runs, trials, question(clips, evaluation), films=films)


def _check_same_clips(kept: Mapping[str, np.ndarray]) -> None:
    """Rows differ in their masks alone.

    Raises:
        ValueError: they read different clips: some have no true masks, or no stored ones.
    """
    (first, clips), *others = kept.items()
    for name, theirs in others:
        if not np.array_equal(clips, theirs):
            raise ValueError(
                f"variants {first!r} and {name!r} would pretrain on different clips ({len(clips)} and {len(theirs)}): not every "
                "clip has stored and true masks; leave out those variants, or name the other clips in data.filter.exclude_keys"
            )


def _run(evaluation: NoisyMasks, trial: Trial, seed: int) -> Run:
    """The pretraining of the config file with this trial's masks and data, in a folder that is its own: another setting, another folder."""
    given = evaluation.pretraining
    overrides = [f"{key}={_yaml(value)}" for key, value in given.set.items()]
    run = load(Run, given.config, [*overrides, f"data.path={evaluation.data.path}", f"run.folder={evaluation.output}"])
    if run.data.filter != Filter() or run.data.mix:
        raise ValueError(
            f"{given.config} filters or mixes its data; give data.filter to the study instead, for all its rows"
        )
    if evaluation.shares and run.training.steps is None:
        raise ValueError(
            f"{given.config} trains for epochs, so less data would mean fewer steps; set its training.steps (and "
            "training.epochs to null) in pretraining.set, or leave shares out"
        )
    if evaluation.shares and run.validation is not None and run.validation.hold_out:
        raise ValueError(
            f"{given.config} holds out groups for validation, and shares hold out others; set validation to null in "
            "pretraining.set, or leave shares out"
        )
    if not run.data.clip.mask:
        raise ValueError(
            f"{given.config} pretrains without masks (data.clip.mask=false); give a config whose objective takes them"
        )
    clip = run.data.clip.model_dump() | {
        "use_truth_as_mask": trial.variant.masks == "truth",
        "degrade": trial.variant.degrade,
    }
    clips = evaluation.data.filter.model_copy(update={"hold_out": 1 - trial.share} if trial.share < 1 else {})
    data = run.data.model_copy(update={"clip": ClipSpec(**clip), "filter": clips, "snapshot": evaluation.data.snapshot})
    tracking = evaluation.tracking.model_copy(update={"register_as": None})
    training = run.training.model_copy(update={"device": evaluation.device})
    run = run.model_copy(update={"data": data, "tracking": tracking, "training": training})
    folder = evaluation.output / "pretraining" / f"{_slug(trial.name)}-seed{seed}-{_told(run)}"
    return run.model_copy(update={"run": RunFolder(folder=folder, seed=seed)})


def _told(run: Run) -> str:
    """A hash of all that shapes the encoder but the seed."""
    says = run.model_dump(
        mode="json", include={"objective", "optimizer", "schedule", "players", "training", "validation"}
    )
    for key in ("checkpoint_every", "keep_checkpoints", "log_every", "picture_every", "hang_timeout", "preflight"):
        del says["training"][key]
    index = Index.open(run.data.path, run.data.snapshot)
    says |= {"data": digest(index, run.data.filter, run.data.clip), "init_from": str(run.initial)}
    return hashlib.sha256(json.dumps(says, sort_keys=True).encode()).hexdigest()[:12]


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
        study.candidates.append(_named(candidate, name))
        world.say(f"features: {name}, {len(evaluation.seeds)} seeds")
    with world.agreed():
        study.asked = study.asked.of(decoded(study.features), evaluation)
    study.columns = answers(study.asked, study.features, linear(evaluation.linear_probe), world).columns
    for trial in study.trials:
        if trial.share == 1:
            data = study.runs[trial.name][0].data
            looked = data.model_copy(update={"clip": data.clip.plain.model_copy(update={"truth": True})})
            quality = mask_quality(looked, evaluation.batch, world)
            if quality is not None:
                study.quality[trial.name] = quality


def _named(candidate: Candidate, name: str) -> Candidate:
    return replace(candidate, name=name)


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
        subjects=tuple(Subject.of(c, seen_in_pretraining(c, asked.tested, evaluation.data)) for c in study.candidates),
        main=evaluation.shared.name,
        tables=tuple(tables),
        notes=tuple(_notes(study)),
        details={"mask_iou": study.quality, "films": study.films},
        facts=facts(evaluation, study.world, seconds, split=str(asked.splits[0])),
    )
    return results, [draw(results, evaluation.output / "figure.png")]


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
        f"Second line: difference to {RANDOM_NAME}, paired by group.",
        *([ONE_SEED] if seeds == 1 else []),
        *(
            ["The fewer films of pretraining, the fewer of the probed films were among them."]
            if evaluation.shares
            else []
        ),
    ]


def _slug(name: str) -> str:
    """A folder's name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _yaml(value: Any) -> str:
    """A value as a dotted override has it: JSON is YAML."""
    return value if isinstance(value, str) else json.dumps(value)
