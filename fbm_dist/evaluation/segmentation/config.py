"""The config of the segmentation protocol; imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from data_tools.config import Config
from data_tools.unlc import UNLC
from data_tools.unlc.config import Preset
from fbm_dist.evaluation.config import Evaluation

Baseline = Literal["flow", "centre", "all"]

SMALL, LARGE = 240, 480  # pixels: the defaults of `prepare`, and what configs/prepare/paper.yaml has


def _several(value: tuple[Path, ...] | Path) -> tuple[Path, ...]:
    """One path stands for a list of one."""
    return (value,) if isinstance(value, Path) else value


if TYPE_CHECKING:  # what a reader of the config gets
    Paths = tuple[Path, ...]
else:  # what may be written
    Paths = Annotated[tuple[Path, ...] | Path, AfterValidator(_several)]


class Skipping(Config):
    """Frames that a further column leaves out, as the evaluation of the published uNLC code does: by predicted foreground."""

    low: float = Field(0.02, ge=0, lt=1)  # a share of the frame; at most so much: skipped
    high: float = Field(0.70, gt=0, le=1)  # more than so much: skipped

    @model_validator(mode="after")
    def _range(self) -> Skipping:
        if self.low >= self.high:
            raise ValueError(f"skip.low {self.low} must be below skip.high {self.high}")
        return self


class Segmentation(Evaluation):
    """How well masks fit those that people drew (Pathak et al., 2017, section 5, Figures 6 and 7)."""

    protocol: Literal["segmentation"] = "segmentation"
    data: Paths  # folders of DAVIS, FBMS-59, VSB100 or SegTrack as they were unpacked
    dataset: Literal["auto", "davis", "fbms", "vsb", "segtrack"] = "auto"  # auto: by what lies in each folder
    split: str | None = None  # a list of the data set's own: train or val (DAVIS), train or test (FBMS-59); None: all
    sequences: tuple[str, ...] = ()  # these alone; empty: all
    max_frames: int | None = Field(None, ge=1)  # of each sequence, from its first; None: all
    unlc: Preset | None = UNLC()  # fast (the default), paper, a section; null: not measured
    networks: Paths = ()  # exported programs (.pt2): one frame (1, 3, s, s) in [-1, 1] -> scores (1, 1, h, w) in [0, 1]
    implicit: Paths = ()  # runs' folders: the foreground that an objective (fbm, motion_mask) separates without being given a mask
    random: bool = True  # beside `implicit`: the same architecture with random weights, one a seed
    baselines: tuple[Baseline, ...] = ("flow", "centre", "all")  # residual flow, centre box, all foreground
    # shorter side of the frames that uNLC and residual flow are computed on, as in `prepare`; never enlarged.
    # None: 240; 480 where uNLC itself works on more than its default of pixels, as paper does (650, longer side)
    working_side: int | None = Field(None, ge=16)
    threshold: float = Field(0.5, gt=0, lt=1)  # foreground is a score above it
    skip: Skipping = Skipping()
    batch: int = Field(4, ge=1)  # implicit: clips a forward pass
    shown: int = Field(8, ge=0)  # sequences on the sheet of overlays; 0: no sheet
    output: Path = Path("runs/segmentation")

    @property
    def side(self) -> int:
        """`working_side`, decided: small frames would hold uNLC below the size that it is told to work on."""
        if self.working_side is not None:
            return self.working_side
        return LARGE if self.unlc is not None and self.unlc.working_side > UNLC().working_side else SMALL

    @model_validator(mode="after")
    def _something(self) -> Segmentation:
        if not self.data:
            raise ValueError("data is empty; give the folder of a data set, e.g. data=DAVIS")
        if self.unlc is None and not (self.networks or self.implicit or self.baselines):
            raise ValueError("nothing to measure: unlc is null, and networks, implicit and baselines are empty")
        return self
