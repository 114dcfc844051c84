"""Answers of several encoders to the same clips -> scores by encoder and column, differences paired."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fbm_dist.evaluation.labelled.clips import LabelledClips
from fbm_dist.evaluation.labelled.splits import Fold
from fbm_dist.evaluation.measures.scores import Right, accuracy, by_clip, by_film, chance, difference
from fbm_dist.evaluation.report.results import Cell


@dataclass(frozen=True)
class Column:
    """One way of measuring, for every encoder.

    Attributes:
        probability: by encoder: (seeds, n, classes); NaN rows were not tested.
        chance: accuracy of always naming the most frequent training class.
    """

    probability: dict[str, np.ndarray]
    chance: float


@dataclass(frozen=True)
class Compared:
    """Scores of one column: by encoder, by clip and by film; how many clips, films and groups were tested."""

    clip: dict[str, Cell]
    film: dict[str, Cell]
    counts: tuple[int, int, int]


def compare(column: Column, clips: LabelledClips, reference: str) -> Compared:
    """Score every encoder on the clips that all of them answered.

    Args:
        reference: the encoder that differences are taken to.
    """
    known = np.all([np.isfinite(p).all(axis=(0, 2)) for p in column.probability.values()], axis=0)
    chosen = clips.take(np.flatnonzero(known))
    by_name = {name: probability[:, known] for name, probability in column.probability.items()}
    clip = {name: by_clip(p, chosen.target, chosen.group) for name, p in by_name.items()}
    film = {name: by_film(p, chosen.target, chosen.film, chosen.group) for name, p in by_name.items()}
    counts = (len(chosen), film[reference].value.shape[1], len(set(chosen.group.tolist())))
    return Compared(_scores(clip, reference), _scores(film, reference), counts)


def mean_chance(clips: LabelledClips, folds: Sequence[Fold]) -> float:
    """Over several folds: each test clip counts once."""
    hits = sum(chance(clips.target[f.train], clips.target[f.test]) * len(f.test) for f in folds)
    return hits / sum(len(fold.test) for fold in folds)


def _scores(right: dict[str, Right], reference: str) -> dict[str, Cell]:
    return {
        name: Cell(accuracy(own), None if name == reference else difference(own, right[reference]))
        for name, own in right.items()
    }
