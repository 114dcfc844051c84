"""Exponential moving average of the weights, each rank over its own places: it costs 4 bytes per parameter over all ranks together."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from fbm_dist.training.engines.places import Place, Read

EMA = "ema"  # the kind of its pieces in a checkpoint


class Average:
    """average <- d * average + (1 - d) * weights after every applied update number n, with d = min(decay, (1 + n) / (10 + n)).

    The smaller d of the first updates (as TensorFlow's ExponentialMovingAverage has it) lets go of the random first weights.
    Buffers (BatchNorm statistics) are averages already and are not averaged again.
    """

    def __init__(self, decay: float, places: Iterable[Place]) -> None:
        self.decay = decay
        self.updates = 0
        self.places = list(places)
        self._values = [place.of(place.owner).clone() for place in self.places]

    def update(self) -> None:
        """Take in the weights as they are now."""
        self.updates += 1
        weight = 1.0 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self._values, [place.of(place.owner) for place in self.places], weight)

    def pieces(self) -> dict[tuple[str, str, int], Tensor]:
        """("ema", parameter, start) -> this rank's live values."""
        return {(EMA, place.name, place.start): v for place, v in zip(self.places, self._values, strict=True)}

    def load(self, updates: int, read: Read) -> None:
        """The inverse of `pieces`."""
        self.updates = updates
        for place, value in zip(self.places, self._values, strict=True):
            value.copy_(read(EMA, place.name, place.start, place.length))
