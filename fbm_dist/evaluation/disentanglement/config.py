"""The config of the disentanglement matrix; imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from fbm_dist.evaluation.config import OfEncoders
from fbm_dist.schema import LinearProbe

PARTS = {"motion": "motion", "object": "foreground", "background": "background"}


class Disentanglement(OfEncoders):
    """Which group of features tells of which factor: a linear probe of every group for every label."""

    protocol: Literal["disentanglement"] = "disentanglement"
    factors: tuple[str, ...] = ()  # labels; empty: all of the data set that can be told apart
    expected: dict[str, str] = PARTS  # factor -> the group that should tell of it; others are measured all the same
    leaks: dict[str, str] = {"background": "motion"}  # factor -> a group that should not tell of it
    test_groups: tuple[str, ...] = ()  # held-out groups; empty: the data set's own splits, else group k-fold
    split: Literal["auto", "k-fold"] = "auto"  # k-fold: folds also where the data set names train and test
    folds: int = Field(5, ge=2)  # of the group k-fold; as many as there are groups, or more: leave one group out
    linear_probe: LinearProbe = LinearProbe()  # with more features than clips, c decides how much a probe finds

    @model_validator(mode="after")
    def _sensible(self) -> Disentanglement:
        if len(set(self.factors)) < len(self.factors):
            raise ValueError("factors names one twice; name each once")
        both = [factor for factor, group in self.leaks.items() if self.expected.get(factor) == group]
        if both:
            raise ValueError(f"{both[0]} is in expected and in leaks with the same group; correct one of them")
        return self
