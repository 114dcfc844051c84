"""Linear probe: standardised features -> multinomial logistic regression (scikit-learn); while training and in the evaluation."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from fbm_dist.schema import LinearProbe

ALL = "all"


def with_all(groups: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The named feature groups, and all of them side by side where there are several."""
    joined = {ALL: np.concatenate(list(groups.values()), axis=1)} if len(groups) > 1 else {}
    return {**groups, **joined}


def probabilities(
    train: np.ndarray, target: np.ndarray, test: np.ndarray, num_classes: int, settings: LinearProbe
) -> tuple[np.ndarray, bool]:
    """Learn from `train`, answer for `test`.

    Args:
        train: float (n, d).
        target: (n,) class indices below `num_classes`.
        test: float (m, d).
    Returns:
        (m, num_classes), and False if the fit stopped at max_iterations.
    """
    train, test = _standardised(train, test)
    model = LogisticRegression(C=settings.c, max_iter=settings.max_iterations)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(train, target)
    found = np.zeros((len(test), num_classes))
    found[:, model.classes_] = model.predict_proba(test)
    return found, not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)


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
