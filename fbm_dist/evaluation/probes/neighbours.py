"""k nearest neighbours over the folds of a split (Wu et al., 2018, section 3.4): the vote of the `probe` section of a run, with shares."""

from __future__ import annotations

import numpy as np
from sklearn.neighbors import KNeighborsClassifier

from fbm_dist.evaluation.labelled.clips import LabelledClips
from fbm_dist.evaluation.labelled.splits import Split
from fbm_dist.evaluation.measures.linear_probe import Probed
from fbm_dist.evaluation.measures.probing import Method
from fbm_dist.evaluation.probes.config import Neighbours


def nearest(settings: Neighbours) -> Method:
    """The method that answers by each test clip's nearest training clips."""

    def method(values: np.ndarray, clips: LabelledClips, split: Split) -> Probed:
        found = np.full((len(clips), len(clips.classes)), np.nan)
        for fold in split.folds:
            known, target = values[fold.train], clips.target[fold.train]
            found[fold.test] = votes(known, target, values[fold.test], len(clips.classes), settings)
        return Probed(found, converged=True)

    return method


def votes(
    train: np.ndarray, target: np.ndarray, test: np.ndarray, num_classes: int, settings: Neighbours
) -> np.ndarray:
    """Shares of the votes: the k training clips of highest cosine similarity s, each weighs exp(s / temperature).

    Where there are fewer than k training clips, all vote.

    Args:
        train: float (n, d); target: (n,) class indices below `num_classes`; test: float (m, d).
    Returns:
        float64 (m, num_classes), rows sum to 1.
    """

    def weights(distance: np.ndarray) -> np.ndarray:  # 1 - s; the nearest weighs 1, so that no vote overflows
        return np.exp((distance.min(axis=1, keepdims=True) - distance) / settings.temperature)

    train, test = (
        train.astype(np.float64),
        test.astype(np.float64),
    )  # clips may be alike to a millionth: random features
    number = min(settings.k, len(train))
    model = KNeighborsClassifier(number, metric="cosine", algorithm="brute", weights=weights).fit(train, target)
    found = np.zeros((len(test), num_classes))
    found[:, model.classes_] = model.predict_proba(test)
    return found
