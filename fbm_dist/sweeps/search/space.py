"""The values that a key of the swept run may take: lists, ranges, and how one is drawn. Imports no Ray."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import numpy as np
from pydantic import Field, model_validator

from data_tools.config import Config

Value = Any  # of YAML: a number, text, null, a list or a section
Bounds = Annotated[tuple[float, float], Field()]


class Grid(Config):
    """All of these, with all values of the other keys (`search: grid`)."""

    grid: tuple[Value, ...] = Field(min_length=1)


class Choice(Config):
    """One of these, each as likely as the others."""

    choice: tuple[Value, ...] = Field(min_length=1)

    def draw(self, rng: np.random.Generator) -> Value:
        """One value."""
        return self.choice[int(rng.integers(len(self.choice)))]


class _Range(Config):
    def _check(self, low: float, high: float, positive: bool = False) -> None:
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"[{low:g}, {high:g}] is no range; give the smaller bound first")
        if positive and low <= 0:
            raise ValueError(f"[{low:g}, {high:g}]: a logarithmic range begins above 0")


class Uniform(_Range):
    """A number between two bounds."""

    uniform: Bounds

    @model_validator(mode="after")
    def _ordered(self) -> Uniform:
        self._check(*self.uniform)
        return self

    def draw(self, rng: np.random.Generator) -> float:
        """One value."""
        return self.rounded(float(rng.uniform(*self.uniform)))

    def rounded(self, value: float) -> float:
        """Six digits: what people can read and type again."""
        return _six_digits(value, *self.uniform)


class LogUniform(_Range):
    """A number between two bounds, whose logarithm is uniform: learning rates, weights of losses."""

    loguniform: Bounds

    @model_validator(mode="after")
    def _ordered(self) -> LogUniform:
        self._check(*self.loguniform, positive=True)
        return self

    def draw(self, rng: np.random.Generator) -> float:
        """One value."""
        low, high = self.loguniform
        return self.rounded(math.exp(rng.uniform(math.log(low), math.log(high))))

    def rounded(self, value: float) -> float:
        """Six digits."""
        return _six_digits(value, *self.loguniform)


class QUniform(_Range):
    """low, low + step, low + 2 * step, ... up to high, each as likely: [low, high, step]."""

    quniform: tuple[float, float, float]

    @model_validator(mode="after")
    def _ordered(self) -> QUniform:
        low, high, step = self.quniform
        self._check(low, high)
        if not 0 < step <= high - low:
            raise ValueError(f"a step of {step:g} does not fit between {low:g} and {high:g}")
        return self

    @property
    def steps(self) -> int:
        """How many steps above the lower bound."""
        low, high, step = self.quniform
        return int((high - low) / step + 1e-9)

    def draw(self, rng: np.random.Generator) -> float:
        """One value."""
        low, _, step = self.quniform
        return self.rounded(low + int(rng.integers(self.steps + 1)) * step)

    def rounded(self, value: float) -> float:
        """Without the dirt of binary fractions."""
        return round(value, 12)


class RandInt(_Range):
    """A whole number between two bounds, both included."""

    randint: tuple[int, int]

    @model_validator(mode="after")
    def _ordered(self) -> RandInt:
        self._check(*self.randint)
        return self

    def draw(self, rng: np.random.Generator) -> int:
        """One value."""
        low, high = self.randint
        return int(rng.integers(low, high, endpoint=True))


Drawn = Choice | Uniform | LogUniform | QUniform | RandInt
Dimension = Grid | Drawn
KINDS: dict[str, type[Dimension]] = {
    "grid": Grid,
    "choice": Choice,
    "uniform": Uniform,
    "loguniform": LogUniform,
    "quniform": QUniform,
    "randint": RandInt,
}


def _six_digits(value: float, low: float, high: float) -> float:
    return min(high, max(low, float(f"{value:.6g}")))


def combinations(space: Mapping[str, Grid]) -> list[dict[str, Value]]:
    """All of a grid, the last key fastest."""
    return [dict(zip(space, found, strict=True)) for found in itertools.product(*(d.grid for d in space.values()))]


def draw(space: Mapping[str, Drawn], seed: int, number: int) -> dict[str, Value]:
    """The values of trial `number`: a pure function of these, whichever trials have run before."""
    rng = np.random.default_rng([seed, number])
    return {key: dimension.draw(rng) for key, dimension in space.items()}


def short_names(keys: Iterator[str] | tuple[str, ...]) -> dict[str, str]:
    """Each dotted key by as few of its last words as tell it from the others."""
    words = {key: key.split(".") for key in keys}
    found = {}
    for key, own in words.items():
        for count in range(1, len(own) + 1):
            name = ".".join(own[-count:])
            if sum(other[-count:] == own[-count:] for other in words.values()) == 1:
                break
        found[key] = name
    return found
