"""The config of the study of mask quality and amount of data; imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from data_tools.config import Config
from fbm_dist.evaluation.config import Evaluation, dotted
from fbm_dist.schema import Data, Degrade, LinearProbe

OWN = (
    "run",
    "data.path",
    "data.snapshot",
    "data.filter",
    "data.mix",
    "data.clip.degrade",
    "data.clip.use_truth_as_mask",
    "tracking",
)


RANDOM_NAME = "no pretraining"  # the row of random weights


def share_name(share: float) -> str:
    """The row of a pretraining with so much of the data."""
    return f"{share:.4g} of the films"


class Pretraining(Config):
    """The run that every variant repeats."""

    config: Path  # of launch/pretrain.py, as on the command line: relative to the working folder
    set: dict[str, Any] = {}  # its keys and their values, e.g. {training.steps: 500}

    @model_validator(mode="after")
    def _free(self) -> Pretraining:
        for key, _ in dotted(self.set):
            if any(key == own or key.startswith(f"{own}.") for own in OWN):
                raise ValueError(f"pretraining.set: {key} is for the study itself to give; leave it out")
        return self


class Variant(Config):
    """Masks to pretrain with."""

    name: str
    masks: Literal["stored", "truth"] = "stored"  # the soft masks of the data set (uNLC), or its true ones
    degrade: Degrade | None = None  # how they are made worse


class NoisyMasks(Evaluation):
    """What the quality of the masks, and the amount of data, are worth to the encoder that they pretrain."""

    pretrains: ClassVar[bool] = True

    protocol: Literal["noisy_masks"] = "noisy_masks"
    pretraining: Pretraining
    data: Data  # what is pretrained on, and what the encoders are probed on
    variants: tuple[Variant, ...] = Field(min_length=1)
    # pretraining with so much of the data (shares of the groups), as many steps each; empty: not asked
    shares: tuple[float, ...] = ()
    shares_of: str | None = None  # which variant's masks then; None: the first with stored masks as they are
    label: str | None = None  # None: "action", else "label", else the data set's only label
    test_groups: tuple[str, ...] = ()  # as in action_recognition
    split: Literal["auto", "k-fold"] = "auto"
    folds: int = Field(5, ge=2)
    batch: int = Field(16, ge=1)  # clips a forward pass
    linear_probe: LinearProbe = LinearProbe()
    output: Path = Path("runs/noisy_masks")

    @model_validator(mode="after")
    def _named(self) -> NoisyMasks:
        names = [variant.name for variant in self.variants]
        if len(set(names)) < len(names) or {RANDOM_NAME, *map(share_name, self.shares)} & set(names):
            raise ValueError("two rows have the same name; give each variant one of its own, not that of another row")
        if any(not 0 < share < 1 for share in self.shares) or len(set(self.shares)) < len(self.shares):
            raise ValueError("shares lie between 0 and 1, each once; the whole is measured anyway")
        if self.shares and self.data.filter.hold_out:
            raise ValueError("shares hold out groups, and so does data.filter.hold_out; leave one of them out")
        if self.shares and self.shares_of is not None and self.shares_of not in names:
            raise ValueError(f"shares_of={self.shares_of!r} is no variant; they are {', '.join(names)}")
        if self.data.mix:
            raise ValueError("an evaluation reads data.path alone; leave data.mix out")
        return self

    @property
    def shared(self) -> Variant:
        """The variant that is pretrained with less data."""
        plain = [v for v in self.variants if v.masks == "stored" and v.degrade is None]
        by_name = [v for v in self.variants if v.name == self.shares_of]
        return (by_name or plain or list(self.variants))[0]
