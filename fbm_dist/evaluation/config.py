"""What all protocols share in their configs; each protocol's own keys stand in its room. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from data_tools.config import Config
from fbm_dist.objectives.families import Pretraining
from fbm_dist.schema import Data, Tracking


def dotted(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """`{data: {path: x}}` and `{data.path: x}` alike as ("data.path", x)."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


class Evaluation(Config):
    """Base of every protocol's config, whose `protocol` is the name of its room."""

    pretrains: ClassVar[bool] = False  # its `evaluate` is given `run.pretrain`

    protocol: str
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...] = Field(
        (0,), min_length=1
    )  # each is another random initialisation, fold, clustering ...
    device: Literal["auto", "cpu", "cuda"] = "auto"
    output: Path = Path(
        "runs/evaluation"
    )  # the same folder again: what takes long and is finished there is not done again
    tracking: Tracking = Tracking()


class OfEncoders(Evaluation):
    """Base of the protocols that measure an encoder, and others beside it, on the clips of a prepared data set."""

    encoder: str  # models:/name@alias, models:/name/version, runs:/ID, a run's folder, or random
    compare_with: tuple[str, ...] = ("random",)  # encoders evaluated beside it
    architecture: Pretraining | None = Field(  # of random; None: that of the encoder that it stands beside
        None, discriminator="family"
    )
    data: Data
    batch: int = Field(16, ge=1)  # clips a forward pass

    @model_validator(mode="after")
    def _one_data_set(self) -> OfEncoders:
        if self.data.mix:
            raise ValueError("an evaluation reads data.path alone; leave data.mix out")
        return self
