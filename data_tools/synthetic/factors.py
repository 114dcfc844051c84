"""Which film has which shots: labels drawn so that every factor is balanced and no two factors tell of each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np

from data_tools.synthetic.config import Split, Synthesize

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Shot:
    """Frames [start, stop) of a film, and what they show: factor -> class."""

    number: int
    start: int
    stop: int
    labels: dict[str, str]


@dataclass(frozen=True)
class FilmPlan:
    """One film to make. `number` alone, with the settings, decides every pixel."""

    number: int
    split: str
    shots: tuple[Shot, ...]

    @property
    def name(self) -> str:
        """Also the group: shots of a film belong together."""
        return f"film-{self.number:05d}"

    @property
    def num_frames(self) -> int:
        """Of all shots together."""
        return self.shots[-1].stop


def plan(settings: Synthesize) -> list[FilmPlan]:
    """All films. A film's plan does not depend on how many follow: 24 films are the first half of 48."""
    draws = {
        name: _balanced(list(settings.factors.values()), np.random.default_rng([settings.seed, 1, i]))
        for i, name in enumerate(SPLITS)
    }
    films = []
    for number, split in zip(range(settings.films), splits(settings.split), strict=False):
        rng = np.random.default_rng([settings.seed, 2, number])
        lengths = rng.integers(settings.frames[0], settings.frames[1] + 1, settings.shots)
        stops = np.cumsum(lengths)
        shots = tuple(
            Shot(i, int(stops[i] - lengths[i]), int(stops[i]), _named(settings, next(draws[split])))
            for i in range(settings.shots)
        )
        films.append(FilmPlan(number, split, shots))
    return films


def _named(settings: Synthesize, draw: Sequence[int]) -> dict[str, str]:
    return {name: classes[i] for (name, classes), i in zip(settings.factors.items(), draw, strict=True)}


def splits(shares: Split) -> Iterator[str]:
    """Endless. The next film goes where most is owed: any number of films keeps the shares to within one film."""
    parts = np.array([getattr(shares, name) for name in SPLITS])
    given = np.zeros_like(parts)
    while True:
        owed = parts * (given.sum() + 1) - given * parts.sum()
        chosen = int(owed.argmax())
        given[chosen] += 1
        yield SPLITS[chosen]


def _balanced(factors: Sequence[Sequence[str]], rng: np.random.Generator) -> Iterator[tuple[int, ...]]:
    """Endless draws of one class a factor (Pocock and Simon's minimisation, 1975).

    The counts of a factor's classes never differ by more than one. Among the draws that keep this, one is taken at random
    from those whose pairs of classes are the rarest so far: chance correlations between factors, which a probe
    would take for leakage, stay below those of independent draws.
    """
    sizes = [len(classes) for classes in factors]
    choices = np.array(list(product(*map(range, sizes))))
    singles = [np.zeros(size, dtype=np.int64) for size in sizes]
    pairs = {(a, b): np.zeros((sizes[a], sizes[b]), dtype=np.int64) for a, b in combinations(range(len(sizes)), 2)}
    while True:
        fair = np.ones(len(choices), dtype=bool)
        for counts, column in zip(singles, choices.T, strict=True):
            fair &= counts[column] == counts.min()
        open_choices = choices[fair]
        cost = np.zeros(len(open_choices), dtype=np.int64)
        for (a, b), table in pairs.items():  # times the number of cells: a pair is rare by the measure of its table
            cost += table[open_choices[:, a], open_choices[:, b]] * table.size
        draw = rng.choice(open_choices[cost == cost.min()])
        for counts, chosen in zip(singles, draw, strict=True):
            counts[chosen] += 1
        for (a, b), table in pairs.items():
            table[draw[a], draw[b]] += 1
        yield tuple(int(i) for i in draw)
