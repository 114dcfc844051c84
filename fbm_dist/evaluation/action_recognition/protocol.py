"""Action recognition (Lin et al., 2017, Table 1): linear probe and fine-tuning, pretrained against random initialisation."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from importlib.metadata import version

import numpy as np
from rich.console import Console

from fbm_dist.data.index.labels import choose_label
from fbm_dist.evaluation.candidates import RANDOM, Candidate, candidates
from fbm_dist.evaluation.clips import LabelledClips, check_classes, labelled_clips
from fbm_dist.evaluation.comparison import Column, Compared, compare, mean_chance
from fbm_dist.evaluation.features import Features, extract
from fbm_dist.evaluation.figure import draw
from fbm_dist.evaluation.fine_tuning import Curve, fine_tune, steps_to
from fbm_dist.evaluation.linear_probe import probe
from fbm_dist.evaluation.origin import seen_in_pretraining
from fbm_dist.evaluation.publish import publish
from fbm_dist.evaluation.results import FINE_TUNED, PaperRow, Results, Row, show, write
from fbm_dist.evaluation.splits import Split, split_clips
from fbm_dist.registry.client import connect
from fbm_dist.schema import Evaluation, Training
from fbm_dist.training.distributed import World, start
from fbm_dist.training.monitoring.linear_probe import with_all

WIDTH = 120  # of the table in a log, where no terminal says how wide it is
ONE_SEED = "One seed: the intervals speak of other groups, not of other random initialisations."
UCF = "the 24 classes of UCF-101 that have boxes"
PAPER = (
    PaperRow("paper: random initialisation", UCF, {FINE_TUNED: 52.2}),
    PaperRow("paper: autoencoder", UCF, {FINE_TUNED: 56.8}),
    PaperRow("paper: FBM", UCF, {FINE_TUNED: 62.5}),
)


@dataclass
class Study:
    """An evaluation under way: what is fixed at the start, and what has been found so far (complete on rank 0)."""

    evaluation: Evaluation
    world: World
    tested: tuple[Candidate, ...]
    clips: LabelledClips
    splits: list[Split]  # one a seed
    columns: dict[str, Column] = field(default_factory=dict)
    curves: dict[str, list[Curve]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def evaluate(evaluation: Evaluation) -> Results:
    """Measure every encoder of `evaluation`, print the table, write results.json, table.md and figure.png, log to MLflow.

    Every rank calls it, alone or under a launcher; every rank gets the results.

    Raises:
        ValueError: what the user can put right, in one line.
    """
    began = time.monotonic()
    world = start(Training(steps=1, engine="torch", device=evaluation.device))
    with world.agreed():
        study = _prepare(evaluation, world)
    clips = study.clips
    world.say(f"{len(clips)} clips of {len(set(clips.film))} films, {len(clips.classes)} classes of {clips.label!r}")
    if evaluation.linear_probe is not None:
        _probe(study)
    if evaluation.fine_tuning is not None:
        _fine_tune(study)
    results = None
    with world.agreed():
        if world.first:
            results = _assemble(study, time.monotonic() - began)
            _hand_out(study, results)
    shared = world.broadcast(results)
    assert shared is not None
    return shared


def _prepare(evaluation: Evaluation, world: World) -> Study:
    """Everything that can be refused, before anything is computed."""
    if evaluation.linear_probe is None and evaluation.fine_tuning is None:
        raise ValueError("nothing to measure: linear_probe and fine_tuning are both null")
    label = choose_label(evaluation.data, evaluation.label)
    tested = candidates(evaluation)
    if evaluation.tracking.mlflow and world.first:
        connect(evaluation.tracking.uri)
    clips = labelled_clips([candidate.data(evaluation.data, label) for candidate in tested], label)
    check_classes(clips)
    return Study(evaluation, world, tested, clips, _splits(clips, evaluation))


def _splits(clips: LabelledClips, evaluation: Evaluation) -> list[Split]:
    """One a seed: seeds draw the folds where nothing else does."""
    return [
        split_clips(
            clips,
            test_groups=evaluation.test_groups,
            folds=evaluation.folds,
            seed=seed,
            own=evaluation.split == "auto",
        )
        for seed in evaluation.seeds
    ]


def _probe(study: Study) -> None:
    """A column for each feature group; the clips that could not be decoded leave the study."""
    features = {candidate.name: _features(candidate, study) for candidate in study.tested}
    decoded = set.intersection(*({*f.key} for per_seed in features.values() for f in per_seed))
    if len(decoded) < len(study.clips):
        study.notes.append(f"{len(study.clips) - len(decoded)} clips could not be decoded and are left out.")
        with study.world.agreed():
            study.clips = study.clips.take(np.flatnonzero([key in decoded for key in study.clips.key.tolist()]))
            check_classes(study.clips)
            study.splits = _splits(study.clips, study.evaluation)
    with study.world.agreed():
        if study.world.first:
            _probe_columns(study, features)
    study.notes.append(f"Linear probe: {study.splits[0]}{_seeds(study)}.")


def _features(candidate: Candidate, study: Study) -> list[Features]:
    """One a seed for random encoders; for others one is enough."""
    seeds = study.evaluation.seeds if candidate.random else study.evaluation.seeds[:1]
    data = candidate.data(study.evaluation.data, study.clips.label)
    out = []
    for seed in seeds:
        with study.world.agreed():
            encoder = candidate.encoder(seed)
        out.append(extract(encoder, data, batch=study.evaluation.batch, world=study.world, name=candidate.name))
        told = f", seed {seed}" if len(seeds) > 1 else ""
        study.world.say(f"features: {candidate.name}{told}, {len(out[-1].key)} clips")
    return out


def _probe_columns(study: Study, features: dict[str, list[Features]]) -> None:
    clips, settings = study.clips, study.evaluation.linear_probe
    assert settings is not None
    found: dict[str, dict[str, list[np.ndarray]]] = {}
    unconverged = 0
    for name, per_seed in features.items():
        for i, split in enumerate(study.splits):
            groups = with_all(per_seed[i % len(per_seed)].of(clips.key.tolist()))
            for group, values in groups.items():
                probed = probe(values, clips.target, split, len(clips.classes), settings)
                unconverged += not probed.converged
                found.setdefault(f"probe: {group}", {}).setdefault(name, []).append(probed.probability)
        study.world.say(f"linear probe: {name}")
    chance = mean_chance(clips, [fold for split in study.splits for fold in split.folds])
    for column, by_name in found.items():
        study.columns[column] = Column({name: np.stack(rows) for name, rows in by_name.items()}, chance)
    if unconverged:
        study.notes.append(
            f"{unconverged} linear probes reached linear_probe.max_iterations before they had converged."
        )


def _fine_tune(study: Study) -> None:
    """The column of fine-tuning: the first folds, every seed, the same budget for every encoder."""
    settings, clips = study.evaluation.fine_tuning, study.clips
    assert settings is not None
    folds = study.splits[0].folds[: settings.folds]
    answers: dict[str, np.ndarray] = {}
    for candidate in study.tested:
        rows = np.full((len(study.evaluation.seeds), len(clips), len(clips.classes)), np.nan)
        for i, seed in enumerate(study.evaluation.seeds):
            for j, fold in enumerate(folds):
                told = f", fold {j + 1} of {len(folds)}" if len(folds) > 1 else ""
                study.world.say(f"fine-tuning: {candidate.name}, seed {seed}{told}, {settings.steps} steps")
                tuned = fine_tune(candidate, seed, clips, fold, study.evaluation, study.world)
                rows[i, fold.test] = tuned.probability[fold.test]
                study.curves.setdefault(candidate.name, []).append(tuned.curve)
        answers[candidate.name] = rows
    study.columns[FINE_TUNED] = Column(answers, mean_chance(clips, folds))
    which = str(study.splits[0])
    if len(folds) < len(study.splits[0].folds):
        tested = sorted({*clips.group[np.concatenate([fold.test for fold in folds])].tolist()})
        shown = f"{', '.join(tested[:6])}{' ...' if len(tested) > 6 else ''}"
        which = f"{len(folds)} of the {len(study.splits[0].folds)} folds only, tested on {shown}"
    number = round(np.mean([len(fold.train) for fold in folds]))
    epochs = settings.steps * settings.global_batch / number
    study.notes.append(
        f"Fine-tuning: {which}; {settings.steps} steps of {settings.global_batch} clips ({epochs:.1f} epochs of {number} "
        f"clips) for every encoder{_seeds(study)}."
    )


def _assemble(study: Study, seconds: float) -> Results:
    clips, evaluation = study.clips, study.evaluation
    reference = next((c.name for c in study.tested if c.uri == RANDOM), study.tested[0].name)
    compared = {name: compare(column, clips, reference) for name, column in study.columns.items()}
    folds = [fold for split in study.splits for fold in split.folds]
    test = clips.take(np.unique(np.concatenate([fold.test for fold in folds])))
    return Results(
        protocol="action_recognition",
        title=f"Action recognition: {clips.label} ({len(clips.classes)} classes) of {evaluation.data.path.name}",
        label=clips.label,
        classes=clips.classes,
        columns=tuple(compared),
        chance={name: column.chance for name, column in study.columns.items()},
        counts={name: found.counts for name, found in compared.items()},
        rows=tuple(_row(candidate, study, compared, test) for candidate in study.tested),
        paper=PAPER if FINE_TUNED in compared else (),
        notes=(*study.notes, *([ONE_SEED] if len(evaluation.seeds) == 1 else [])),
        reference=reference,
        facts={
            "config": evaluation.model_dump(mode="json"),
            "split": str(study.splits[0]),
            "seconds": round(seconds, 1),
            "processes": study.world.size,
            "versions": {name: version(name) for name in ("torch", "scikit-learn", "mlflow")},
        },
    )


def _row(candidate: Candidate, study: Study, compared: dict[str, Compared], test: LabelledClips) -> Row:
    curves = tuple(study.curves.get(candidate.name, ()))
    return Row(
        name=candidate.name,
        uri=candidate.uri,
        model=candidate.registered.uri if candidate.registered else None,
        sha256=candidate.description.sha256 if candidate.description else None,
        seen=seen_in_pretraining(candidate, test, study.evaluation.data),
        clip={column: found.clip[candidate.name] for column, found in compared.items()},
        film={column: found.film[candidate.name] for column, found in compared.items()},
        curves=curves,
        steps_to_90=tuple(steps_to(curve, 0.9) for curve in curves),
    )


def _hand_out(study: Study, results: Results) -> None:
    """Files, console, MLflow."""
    evaluation = study.evaluation
    files = [*write(results, evaluation.output), draw(results, evaluation.output / "figure.png")]
    show(results, Console() if sys.stdout.isatty() else Console(width=WIDTH))
    print(f"written: {', '.join(map(str, files))}")
    if evaluation.tracking.mlflow:
        publish(evaluation, results, study.tested, files)


def _seeds(study: Study) -> str:
    count = len(study.evaluation.seeds)
    return f", mean of {count} seeds" if count > 1 else ""
