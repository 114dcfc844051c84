"""Every key that the data tools' commands take. Imports no torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from data_tools.config import Config
from data_tools.prune import Pruning
from data_tools.unlc.config import UNLC


class Shots(Config):
    """Where a film is cut. Thresholds are of changes on a scale of 0 to 255."""

    detector: Literal["adaptive", "kernel", "none"] = (
        "adaptive"  # kernel: temporal segmentation as in the uNLC paper's code
    )
    min_frames: int = Field(10, ge=1)  # no shot is shorter (the paper drops shots below 10 frames)
    threshold: float = Field(3.0, gt=1)  # adaptive: a cut changes this many times as much as the frames around it
    min_change: float = Field(12.0, ge=0)  # adaptive: and at least this much
    window: int = Field(2, ge=1)  # adaptive: frames on either side that "around" means
    kernel_window: int = Field(300, ge=16)  # kernel: frames segmented at a time
    kernel_max_cuts: int = Field(4, ge=1)  # kernel: per window; the original's 5 shots
    kernel_penalty: float = Field(0.6, gt=0)  # kernel: the original's vmax; larger: fewer cuts


class Masks(Config):
    """Where the soft foreground masks come from and how large they are stored."""

    kind: Literal["unlc", "given", "none"] = "unlc"  # given: the true masks beside the frames, or `truth` of labels.csv
    side: int = Field(128, ge=16)  # shorter side of the stored masks in pixels; never larger than the stored clip
    working_side: int = Field(
        240, ge=16
    )  # shorter side of the frames that masks are computed on; frames are only made smaller
    unlc: UNLC = UNLC()


class Prepare(Config):
    """`prepare`: films in, shards out."""

    input: Path | tuple[Path, ...]  # folders, films, or lists of paths (.txt, .csv)
    output: Path
    labels_file: str | None = "labels.csv"  # looked for in each input folder, and beside a film or list
    labels: dict[str, str] | None = None  # {label: column of labels.csv}; None: every column that has no other meaning
    pictures: Literal["frames", "single"] = (
        "frames"  # a folder of pictures is one film, or each picture a clip of one frame
    )
    frames_fps: float = Field(24.0, gt=0)  # of folders of frames, which do not say it
    max_frames: int = Field(64, ge=1, le=4096)  # of a clip
    min_frames: int = Field(16, ge=1)  # a shorter rest of a shot is left out and counted
    max_film_frames: int = Field(1_000_000, ge=1)  # a longer film is read up to here, and the report says so
    short_side: int = Field(128, ge=16)  # of stored clips in pixels; larger films are made smaller
    min_source_side: int = Field(32, ge=2)  # a film below it is skipped
    max_aspect: float = Field(5.0, gt=1)  # longer to shorter side; beyond it a film is skipped
    codec: Literal["vp9", "h264"] = "vp9"  # DALI decodes VP9 on CPU and GPU, H.264 on GPU only
    gop: int = Field(32, ge=1)  # frames between key frames
    shots: Shots = Shots()
    masks: Masks = Masks()
    prune: Pruning = Pruning()  # verdicts are stored; nothing is thrown away
    shard_bytes: int = Field(256 << 20, ge=1)  # a shard is closed when it has grown beyond this
    workers: int | None = Field(None, ge=1)  # processes; None: one a core
    time_limit: float = Field(600.0, gt=0)  # seconds without a sign of life after which a film is given up
    retry: bool = False  # try films again that an earlier run gave up (died, out of time)

    @model_validator(mode="after")
    def _lengths(self) -> Prepare:
        if self.min_frames > self.max_frames:
            raise ValueError(f"min_frames {self.min_frames} is larger than max_frames {self.max_frames}")
        return self

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The inputs as a tuple."""
        return self.input if isinstance(self.input, tuple) else (self.input,)

    @property
    def num_workers(self) -> int:
        """Processes to use on this machine."""
        return self.workers or len(os.sched_getaffinity(0))

    def shaping(self) -> dict[str, Any]:
        """What shapes the samples: the settings that one data set has in common, as JSON values."""
        local = {"input", "output", "labels_file", "workers", "time_limit", "retry"}
        return self.model_dump(mode="json", exclude=local)


class Verify(Config):
    """`verify`: prove that a data set is what it says."""

    path: Path
    snapshot: str = "latest"
    decode: int = Field(200, ge=0)  # clips whose frames are decoded and counted, evenly spread; 0: none
    dali: bool = True  # decode them with DALI too, where it can
    max_problems: int = Field(100, ge=1)  # printed; all are counted


class Inspect(Config):
    """`inspect`: a contact sheet with mask overlays."""

    path: Path
    snapshot: str = "latest"
    output: Path | None = None  # None: inspect.png in the data set's folder
    clips: int = Field(12, ge=1)  # rows
    frames: int = Field(8, ge=1)  # per row
    height: int = Field(96, ge=16)  # of a picture in pixels
    seed: int = Field(0, ge=0)  # which clips
