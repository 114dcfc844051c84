"""Accuracy per clip and per film, with intervals from a bootstrap over groups and seeds (paired where two encoders are compared)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % bootstrap interval; the bounds are None where there is one group only."""

    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Right:
    """Which units (clips or films) were classified right.

    Attributes:
        value: (seeds, n) 0 or 1; differences of two encoders lie in [-1, 1].
        group: (n,) the unit's group.
    """

    value: np.ndarray
    group: np.ndarray


def by_clip(probability: np.ndarray, target: np.ndarray, group: np.ndarray) -> Right:
    """Each clip by itself.

    Args:
        probability: (seeds, n, classes).
        target: (n,) class indices.
    """
    return Right((probability.argmax(axis=2) == target).astype(float), group)


def by_film(probability: np.ndarray, target: np.ndarray, film: np.ndarray, group: np.ndarray) -> Right:
    """Each film by the mean of its clips' probabilities; a film of several classes or groups counts once for each of them."""
    codes = [np.unique(labels, return_inverse=True)[1] for labels in (film, target, group)]
    _, first, unit = np.unique(np.stack(codes), axis=1, return_index=True, return_inverse=True)
    order = np.argsort(unit, kind="stable")
    starts = np.searchsorted(unit[order], np.arange(len(first)))
    total = np.add.reduceat(probability[:, order], starts, axis=1)  # the mean's argmax is the sum's
    return Right((total.argmax(axis=2) == target[first]).astype(float), group[first])


def accuracy(right: Right, *, seed: int = 0) -> Interval:
    """Mean over seeds and units, and its interval."""
    return _bootstrap(right.value, right.group, seed)


def difference(one: Right, other: Right, *, seed: int = 0) -> Interval:
    """Mean of `one` minus `other` over the same units; in each resample both see the same groups and seeds (paired)."""
    assert np.array_equal(one.group, other.group), "a paired comparison needs the same units"
    return _bootstrap(one.value - other.value, one.group, seed)


def chance(train: np.ndarray, test: np.ndarray) -> float:
    """Accuracy on `test` (class indices) of always answering the most frequent class of `train`."""
    return float((test == np.bincount(train).argmax()).mean())


def _bootstrap(value: np.ndarray, group: np.ndarray, seed: int) -> Interval:
    """Groups, not clips, are drawn with replacement, since clips of one person are not independent; and seeds, where there are several."""
    names, member = np.unique(group, return_inverse=True)
    mean = float(value.mean())
    if len(names) < 2:
        return Interval(mean, None, None)
    count = np.bincount(member)
    total = np.stack([np.bincount(member, weights=row) for row in value])  # seeds x groups
    random = np.random.default_rng(seed)
    groups = _draws(random, len(names))
    means = np.einsum("rs,sg,rg->r", _draws(random, len(value)), total, groups) / len(value) / (groups @ count)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(mean, float(low), float(high))


def _draws(random: np.random.Generator, number: int) -> np.ndarray:
    """(resamples, number): how often each is drawn."""
    return random.multinomial(number, np.full(number, 1 / number), size=RESAMPLES)
