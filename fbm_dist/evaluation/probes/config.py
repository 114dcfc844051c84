"""The config of the quick probes; imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from data_tools.config import Config
from fbm_dist.evaluation.config import OfEncoders
from fbm_dist.schema import LinearProbe


class Neighbours(Config):
    """k nearest neighbours by cosine similarity, votes weighted by exp(similarity / temperature)."""

    k: int = Field(20, ge=1)
    temperature: float = Field(0.07, gt=0)


class Probes(OfEncoders):
    """What frozen features tell of labels: k nearest neighbours (Wu et al., 2018) and logistic regression, in minutes."""

    protocol: Literal["probes"] = "probes"
    label: str | None = None  # None: "action", else "label", else the data set's only label
    labels: tuple[str, ...] = ()  # several at once, in place of label
    test_groups: tuple[str, ...] = ()  # held-out groups; empty: the data set's own splits, else group k-fold
    split: Literal["auto", "k-fold"] = "auto"  # k-fold: folds also where the data set names train and test
    folds: int = Field(5, ge=2)  # of the group k-fold; as many as there are groups, or more: leave one group out
    neighbours: Neighbours | None = Neighbours()
    linear_probe: LinearProbe | None = LinearProbe()

    @model_validator(mode="after")
    def _asks_something(self) -> Probes:
        if self.neighbours is None and self.linear_probe is None:
            raise ValueError("nothing to measure: neighbours and linear_probe are both null")
        if self.label is not None and self.labels:
            raise ValueError("give label for one, or labels for several, not both")
        if len(set(self.labels)) < len(self.labels):
            raise ValueError("labels names one twice; name each once")
        return self
