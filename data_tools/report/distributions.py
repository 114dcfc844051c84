"""Counts that grow with a stream and stay small: how often each value occurs, and how numbers are spread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

MOST = 100_000  # different values that are told apart
QUANTILES = {"p5": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95}


class Tally:
    """How often each text occurs. Beyond `most` different ones, new ones are only counted together, as `others`."""

    def __init__(self, most: int = MOST) -> None:
        self.most, self.counts, self.others = most, Counter[str](), 0

    def add(self, counts: Mapping[str, int]) -> None:
        """Add so many of each."""
        for value, count in counts.items():
            if value in self.counts or len(self.counts) < self.most:
                self.counts[value] += count
            else:
                self.others += count

    @property
    def total(self) -> int:
        """How many were added."""
        return self.counts.total() + self.others

    def top(self, number: int | None = None) -> dict[str, int]:
        """The most frequent, equal ones by name; None: all that are told apart."""
        return dict(sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))[:number])


class Distribution:
    """How numbers are spread, to within a multiple of `step`: quantiles and histograms without the numbers themselves.

    Attributes:
        counts: multiple of `step` -> how many numbers are nearest to it.
    """

    def __init__(self, step: float = 1) -> None:
        self.step, self.counts, self._sum = step, Counter[int](), 0.0

    def add(self, numbers: np.ndarray) -> None:
        """Add numbers of any shape; NaN and infinity are passed over."""
        finite = numbers[np.isfinite(numbers)]
        self._sum += float(finite.sum(dtype=np.float64))
        values, counts = np.unique(np.rint(finite / self.step).astype(np.int64), return_counts=True)
        self.counts.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))

    @property
    def total(self) -> int:
        """How many were added."""
        return self.counts.total()

    @property
    def mean(self) -> float:
        """Of the numbers as they were added.

        Raises:
            ValueError: there are none.
        """
        if not self.counts:
            raise ValueError("a distribution of no numbers has no mean")
        return self._sum / self.total

    def quantile(self, share: float) -> float:
        """The smallest number that at least `share` of all do not exceed.

        Raises:
            ValueError: there are none.
        """
        if not self.counts:
            raise ValueError("a distribution of no numbers has no quantiles")
        places = np.array(sorted(self.counts))
        below = np.cumsum([self.counts[place] for place in places.tolist()])
        place = places[np.searchsorted(below, share * below[-1] * (1 - 1e-12))]
        return round(float(place * self.step), 9)

    def binned(self, edges: np.ndarray) -> np.ndarray:
        """int64: how many numbers lie in each [edges[i], edges[i + 1])."""
        places = np.array(sorted(self.counts), dtype=np.float64) * self.step
        weights = np.array([self.counts[place] for place in sorted(self.counts)], dtype=np.float64)
        slack = 1e-9 * self.step  # 3 * 0.1 is a hair more than 0.3
        return np.histogram(places + slack, edges, weights=weights)[0].astype(np.int64)

    def summary(self) -> dict[str, Any] | None:
        """Count, mean, extremes and `QUANTILES`; None where there are no numbers."""
        if not self.counts:
            return None
        ends = {"min": self.quantile(0), "max": self.quantile(1)}
        quantiles = {name: self.quantile(share) for name, share in QUANTILES.items()}
        return {"count": self.total, "mean": round(self.mean, 6), **ends, **quantiles}


def counted(values: Iterable[Any]) -> dict[str, int]:
    """How often each value occurs, as text."""
    return dict(Counter(str(value) for value in values))
