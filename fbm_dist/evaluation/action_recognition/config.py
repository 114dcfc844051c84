"""The config of action recognition; imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from data_tools.config import Config
from fbm_dist.evaluation.config import OfEncoders
from fbm_dist.schema import LinearProbe, Optimizer, Schedule

Mode = Literal["fine-tuned", "frozen"]


class FineTuning(Config):
    """A linear softmax layer on the features, trained by the trainer, with the encoder or on the frozen encoder."""

    modes: tuple[Mode, ...] = Field(
        ("fine-tuned",), min_length=1
    )  # each is a column: as the paper does, and encoder frozen
    steps: int = Field(300, ge=1)
    folds: int = Field(1, ge=1)  # of the group k-fold: how many are trained and tested; each costs `steps`
    looks: int = Field(10, ge=0)  # points of the curve of test accuracy (the paper's Figure 3); 0: none
    global_batch: int = Field(16, ge=1)
    micro_batch: int = Field(8, ge=1)
    optimizer: Optimizer = Optimizer(weight_decay=0.1)
    schedule: Schedule = Schedule()
    precision: Literal["fp32", "bf16"] = "fp32"
    reverse: float = Field(0.0, ge=0, le=1)
    mirror: float = Field(0.5, ge=0, le=1)


class ActionRecognition(OfEncoders):
    """Action recognition (Lin et al., 2017, Table 1 and Figure 3)."""

    protocol: Literal["action_recognition"] = "action_recognition"
    label: str | None = None  # None: "action", else "label", else the data set's only label
    test_groups: tuple[str, ...] = ()  # held-out groups; empty: the data set's own splits, else group k-fold
    split: Literal["auto", "k-fold"] = "auto"  # k-fold: folds also where the data set names train and test
    folds: int = Field(5, ge=2)  # of the group k-fold; as many as there are groups: leave one group out
    linear_probe: LinearProbe | None = LinearProbe()
    fine_tuning: FineTuning | None = FineTuning()

    @model_validator(mode="after")
    def _something(self) -> ActionRecognition:
        if self.linear_probe is None and self.fine_tuning is None:
            raise ValueError("nothing to measure: linear_probe and fine_tuning are both null")
        return self
