"""The config of discovery; imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from fbm_dist.evaluation.config import OfEncoders

Algorithm = Literal["k-means", "spectral"]


class Discovery(OfEncoders):
    """Discovery of categories by clustering (Redondo-Cabrera and Lopez-Sastre, 2018, section 4, Tables 1 to 3)."""

    protocol: Literal["discovery"] = "discovery"
    label: str | None = None  # what is to be discovered; None: "action", else "label", else the data set's only label
    # which clips are clustered; auto: test where the data set names train and test, as in the paper, else all
    split: Literal["auto", "test", "train", "all"] = "auto"
    clusters: int | None = Field(None, ge=2)  # None: as many as there are classes
    algorithms: tuple[Algorithm, ...] = Field(("k-means", "spectral"), min_length=1)  # each is a table
    repeats: int = Field(10, ge=1)  # clusterings, which differ in k-means' random numbers
    starts: int = Field(10, ge=1)  # k-means++ starts of each clustering; the one with the least squared error is kept
    # before distances are taken: none, as in the paper; standard: zero mean and unit variance; l2: vectors of length 1
    scale: Literal["none", "standard", "l2"] = "none"
    sigma: float | Literal["median"] = (
        "median"  # width of the spectral clustering's kernel; median distance of two clips
    )
    spectral_clips: int = Field(
        10_000, ge=2, le=20_000
    )  # of more clips so many, evenly spread: n^2 numbers are in memory
    paper: Literal["none", "ucf101", "five_contexts"] = "none"  # whose rows stand beside: Tables 1 and 2, or Table 3
    figure_group: str | None = None  # feature group of the map and the sheet; None: the one of the least entropy
    figure_clusters: int = Field(6, ge=1, le=20)  # purest clusters on the sheet
    figure_clips: int = Field(5000, ge=10)  # points of the map at most, evenly spread

    @model_validator(mode="after")
    def _can_be_done(self) -> Discovery:
        if len(set(self.algorithms)) < len(self.algorithms):
            raise ValueError(f"algorithms: {', '.join(self.algorithms)}: each once")
        if self.sigma != "median" and self.sigma <= 0:
            raise ValueError(f"sigma is {self.sigma}; give a number above 0, or median")
        own = self.data.filter.split
        if own is not None and self.split not in ("auto", own):
            raise ValueError(f"split is {self.split}, and data.filter.split {own}; leave one of them out")
        return self
