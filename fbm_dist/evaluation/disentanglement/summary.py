"""One encoder's matrix in a few figures, whose intervals come from one bootstrap over groups and seeds for all factors together."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fbm_dist.evaluation.measures.scores import LEVEL, RESAMPLES, Interval, Right

EXPECTED, SEPARATION = "expected groups", "separation"


def leak_name(factor: str, group: str) -> str:
    """The column of this leak."""
    return f"leak: {factor} in {group}"


@dataclass(frozen=True)
class Draws:
    """How often each group and each seed counts: row 0 is what was measured (all once), the others are resamples.

    Attributes:
        names: the groups of all factors' clips, sorted.
        group: (1 + RESAMPLES, groups); `seed`: (1 + RESAMPLES, seeds).
    """

    names: np.ndarray
    group: np.ndarray
    seed: np.ndarray

    @staticmethod
    def of(groups: np.ndarray, num_seeds: int) -> Draws:
        """Draw with replacement, the same draws whenever groups and seeds are the same.

        Args:
            groups: names, with repetition.
        """
        names = np.unique(groups)
        random = np.random.default_rng(0)

        def counts(number: int) -> np.ndarray:
            drawn = random.multinomial(number, np.full(number, 1 / number), size=RESAMPLES)
            return np.concatenate([np.ones((1, number), dtype=drawn.dtype), drawn])

        return Draws(names, counts(len(names)), counts(num_seeds))

    def means(self, right: Right) -> np.ndarray:
        """(1 + RESAMPLES,) accuracies; NaN where a resample has none of these clips."""
        member = np.searchsorted(self.names, right.group)
        count = np.bincount(member, minlength=len(self.names))
        total = np.stack([np.bincount(member, weights=row, minlength=len(self.names)) for row in right.value])
        hits = np.einsum("rs,sg,rg->r", self.seed, total, self.group)
        with np.errstate(invalid="ignore"):
            return hits / (self.seed.sum(axis=1) * (self.group @ count))

    def interval(self, values: np.ndarray) -> Interval:
        """Of a statistic of such means."""
        if len(self.names) < 2:
            return Interval(float(values[0]), None, None)
        with warnings.catch_warnings():  # no resample at all has a value: NaN is the answer
            warnings.simplefilter("ignore", RuntimeWarning)
            low, high = np.nanquantile(values[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Interval(float(values[0]), float(low), float(high))


def statistics(
    accuracy: Mapping[str, Mapping[str, np.ndarray]],
    chance: Mapping[str, np.ndarray],
    expected: Mapping[str, str],
    leaks: Mapping[str, str],
) -> dict[str, np.ndarray]:
    """The summary of one matrix, by column; what it has not all cells for is left out.

    - `expected groups`: the mean accuracy of each factor from the group that should tell of it;
    - `separation`: how much more that group tells of it than the best other one, mean over the factors, in accuracy;
    - `leak: FACTOR in GROUP`: (accuracy - chance) / (1 - chance): 0 nothing, 1 everything.

    Args:
        accuracy: [group][factor], without groups that join others; every leaf an array of `Draws.means`.
        chance: [factor], likewise.
        expected: factor -> group, of factors that were measured; `leaks` likewise.
    """
    out: dict[str, np.ndarray] = {}
    if expected and all(factor in accuracy.get(group, {}) for factor, group in expected.items()):
        own = {factor: accuracy[group][factor] for factor, group in expected.items()}
        out[EXPECTED] = np.mean(list(own.values()), axis=0)
        others = {
            factor: [by_factor[factor] for name, by_factor in accuracy.items() if name != group and factor in by_factor]
            for factor, group in expected.items()
        }
        if all(others.values()):
            out[SEPARATION] = np.mean([own[factor] - np.max(others[factor], axis=0) for factor in expected], axis=0)
    for factor, group in leaks.items():
        if factor in accuracy.get(group, {}):
            with np.errstate(invalid="ignore", divide="ignore"):
                leak = (accuracy[group][factor] - chance[factor]) / (1 - chance[factor])
            out[leak_name(factor, group)] = np.where(np.isfinite(leak), leak, np.nan)
    return out
