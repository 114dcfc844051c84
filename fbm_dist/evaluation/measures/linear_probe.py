"""Linear probe over the folds of a split: each clip is answered for by a fit that has not seen its group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fbm_dist.evaluation.labelled.splits import Split
from fbm_dist.schema import LinearProbe
from fbm_dist.training.monitoring.linear_probe import probabilities


@dataclass(frozen=True)
class Probed:
    """What the probe says of the tested clips.

    Attributes:
        probability: (n, classes) for every clip of the data set; rows of clips that are in no test part are NaN.
        converged: False: some fit stopped at max_iterations.
    """

    probability: np.ndarray
    converged: bool


def probe(
    features: np.ndarray,
    target: np.ndarray,
    split: Split,
    num_classes: int,
    settings: LinearProbe,
    *,
    done: Callable[[], None] = lambda: None,
) -> Probed:
    """Fit on each fold's training part, answer for its test part.

    Args:
        features: float (n, d).
        target: (n,) class indices below `num_classes`.
        done: called after each fold.
    """
    probability = np.full((len(features), num_classes), np.nan)
    converged = True
    for fold in split.folds:
        answers, fitted = probabilities(
            features[fold.train], target[fold.train], features[fold.test], num_classes, settings
        )
        probability[fold.test] = answers
        converged &= fitted
        done()
    return Probed(probability, converged)
