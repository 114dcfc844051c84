"""Discovery (Redondo-Cabrera and Lopez-Sastre, 2018, Tables 1 to 3): are the clusters of the features the true classes?"""

from __future__ import annotations

import time

import numpy as np

from fbm_dist.data.index.labels import choose_label
from fbm_dist.evaluation.discovery.config import Algorithm, Discovery
from fbm_dist.evaluation.discovery.discover import Clusterings, collapsed, discover, joined, prepared
from fbm_dist.evaluation.discovery.findings import Study, assemble
from fbm_dist.evaluation.encoders.candidates import Candidate, candidates
from fbm_dist.evaluation.encoders.features import Features, of_every_seed
from fbm_dist.evaluation.labelled.clips import LabelledClips, labelled_clips
from fbm_dist.evaluation.labelled.splits import TEST, TRAIN
from fbm_dist.evaluation.report.delivery import deliver
from fbm_dist.evaluation.report.results import Results
from fbm_dist.evaluation.world import join
from fbm_dist.registry.client import connect
from fbm_dist.training.distributed import World


def evaluate(evaluation: Discovery) -> Results:
    """Cluster every encoder's features: tables of conditional entropy and mutual information, figures, clusters.csv, MLflow.

    Every rank calls it, alone or under a launcher; every rank gets the results. All ranks extract features, rank 0 clusters.

    Raises:
        ValueError: what the user can put right, in one line.
    """
    began = time.monotonic()
    world = join(evaluation.device)
    with world.agreed():
        study = _prepare(evaluation, world)
    clips = study.clips
    world.say(f"{len(clips)} clips of {len(set(clips.film))} films, {study.k} clusters, classes of {clips.label!r}")
    features = {
        candidate.name: of_every_seed(
            candidate,
            candidate.data(study.data, clips.label),
            seeds=evaluation.seeds,
            batch=evaluation.batch,
            world=world,
        )
        for candidate in study.tested
    }
    with world.agreed():
        _leave_out_undecoded(study, features)
    with world.agreed():
        if world.first:
            # the main encoder first: it alone can be refused
            for candidate in sorted(study.tested, key=lambda one: one.name != study.main):
                _cluster(candidate, features.pop(candidate.name), study)
    return deliver(evaluation, world, lambda: assemble(study, time.monotonic() - began), data=str(evaluation.data.path))


def _prepare(evaluation: Discovery, world: World) -> Study:
    """Everything that can be refused, before anything is computed."""
    label = choose_label(evaluation.data, evaluation.label)
    tested = candidates(evaluation)
    if evaluation.tracking.mlflow and world.first:
        connect(evaluation.tracking.uri)
    clips = labelled_clips([candidate.data(evaluation.data, label) for candidate in tested], label)
    part = _part(evaluation, clips)
    data = evaluation.data
    if part is not None:
        data = data.model_copy(update={"filter": data.filter.model_copy(update={"split": part})})
        clips = clips.take(np.flatnonzero(clips.split == part))
    study = Study(evaluation, world, tested, data, clips, part)
    _check(study)
    return study


def _part(evaluation: Discovery, clips: LabelledClips) -> str | None:
    """The data set's split whose clips are clustered; None: all clips."""
    if evaluation.split == "auto":
        both = {TRAIN, TEST} <= set(clips.split.tolist())
        return evaluation.data.filter.split or (TEST if both else None)
    return None if evaluation.split == "all" else evaluation.split


def _check(study: Study) -> None:
    """
    Raises:
        ValueError: no clips, a single class, fewer clips than clusters.
    """
    clips = study.clips
    where = "among the clips" if study.part is None else f"in the split {study.part!r}"
    classes = sorted({clips.classes[i] for i in clips.target})
    if not classes:
        raise ValueError(f"{study.data.path}: no clip with the label {clips.label!r} {where}; give another split")
    if len(classes) < 2:
        raise ValueError(
            f"{study.data.path}: {where} the label {clips.label!r} has one value only ({classes[0]!r}): "
            "nothing to discover; give another split or label"
        )
    if study.k > len(clips):
        told = "as many as there are classes" if study.evaluation.clusters is None else f"clusters={study.k}"
        raise ValueError(
            f"{len(clips)} clips {where} cannot be {study.k} clusters ({told}); give more clips, or fewer clusters"
        )


def _leave_out_undecoded(study: Study, features: dict[str, list[Features]]) -> None:
    """Every encoder is measured on the clips that could be decoded for all of them; and on groups that it has."""
    decoded = set.intersection(*({*f.key} for per_seed in features.values() for f in per_seed))
    missing = len(study.clips) - len(decoded.intersection(study.clips.key.tolist()))
    if missing:
        study.notes.append(f"{missing} clips could not be decoded and are left out.")
        study.clips = study.clips.take(np.flatnonzero([key in decoded for key in study.clips.key.tolist()]))
        _check(study)
    wanted = study.evaluation.figure_group
    groups = features[study.main][0].groups
    if wanted is not None and wanted not in groups and not (wanted == "all" and len(groups) > 1):
        raise ValueError(f"figure_group={wanted}: the encoder {study.main} has {', '.join(groups)} (and all)")


def _cluster(candidate: Candidate, per_seed: list[Features], study: Study) -> None:
    """Every algorithm on every feature group: `repeats` clusterings of each random initialisation.

    A group that cannot be clustered is refused for the main encoder alone: of others its cells are left out, and a note says why.

    Raises:
        ValueError: the main encoder's features of a group cannot be clustered.
    """
    evaluation, main = study.evaluation, candidate.name == study.main
    seeds = candidate.seeds(evaluation.seeds)
    found: dict[tuple[Algorithm, str], list[Clusterings]] = {}
    refused: dict[str, None] = {}
    for seed, features in zip(seeds, per_seed, strict=True):
        groups = features.of(study.clips.key.tolist())
        dead = collapsed(groups)
        for group in dead:
            refused[f"encoder {candidate.name}: its {group} features are the same for every clip"] = None
            if main:
                told = next(iter(refused))
                raise ValueError(
                    f"{told}, so there is nothing to cluster; the encoder has collapsed, take an earlier version"
                )
        # to the distances in all groups together one that is the same everywhere adds nothing
        groups = prepared({group: values for group, values in groups.items() if group not in dead}, evaluation)
        if main and not study.points:
            study.points.update(groups)
        for algorithm in evaluation.algorithms:
            for group, values in groups.items():
                try:
                    clusterings = discover(values, algorithm, study.k, study.clustering_seeds(seed), evaluation)
                except ValueError as error:
                    told = f"encoder {candidate.name}, {group} features: {error}"
                    if main:
                        raise ValueError(told) from None
                    refused[told] = None
                else:
                    found.setdefault((algorithm, group), []).append(clusterings)
    for (algorithm, group), several in found.items():
        if len(several) == len(seeds):  # else its mean would be of other initialisations than its neighbours'
            study.found[algorithm][candidate.name][group] = joined(several)
    study.notes.extend(f"Left out: {told}." for told in refused)
    study.world.say(f"clusters: {candidate.name}")
