"""Linear probe: standardised features -> multinomial logistic regression (scikit-learn)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from fbm_dist.evaluation.splits import Split
from fbm_dist.schema import LinearProbe

ALL = "all"


@dataclass(frozen=True)
class Probed:
    """What the probe says of the tested clips.

    Attributes:
        probability: (n, classes) for every clip of the data set; rows of clips that are in no test part are NaN.
        converged: False: some fit stopped at max_iterations.
    """

    probability: np.ndarray
    converged: bool


def with_all(groups: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The named feature groups, and all of them side by side where there are several."""
    joined = {ALL: np.concatenate(list(groups.values()), axis=1)} if len(groups) > 1 else {}
    return {**groups, **joined}


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
        train, test = _standardised(features[fold.train], features[fold.test])
        model = LogisticRegression(C=settings.c, max_iter=settings.max_iterations)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            model.fit(train, target[fold.train])
        converged &= not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)
        probability[fold.test] = 0
        probability[np.ix_(fold.test, model.classes_)] = model.predict_proba(test)
        done()
    return Probed(probability, converged)


def _standardised(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Zero mean and unit variance as the training part has them; fewer columns where there are more features than clips.

    The weights that minimise an L2-regularised loss lie in the span of the training rows, so turning the features into
    that span changes no answer, and makes 8,192 features of 80 clips a problem of 80 columns.
    """
    scaler = StandardScaler().fit(train.astype(np.float64))
    train, test = scaler.transform(train), scaler.transform(test)
    if train.shape[1] <= train.shape[0]:
        return train, test
    _, _, span = np.linalg.svd(train, full_matrices=False)
    return train @ span.T, test @ span.T
