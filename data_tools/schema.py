"""Every key that the data tools' commands take. Imports no torch."""

from __future__ import annotations

import os
from typing import Any, Literal

from pydantic import Field, model_validator

from data_tools.config import Config
from data_tools.prune import Pruning
from data_tools.unlc.config import UNLC, Preset


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

    # given: the true masks beside the frames, or `truth` of labels.csv; network: of a trained segmenter, from each frame alone;
    # combined: uNLC in which such a segmenter votes beside motion
    kind: Literal["unlc", "given", "network", "combined", "none"] = "unlc"
    # network, combined: the segmenter's file (NAME.pt2), its URL, or package.module:function; see data_tools/segmenter.py
    network: str | None = None
    # of that file; None: whatever it is. It is stored with the settings: another segmenter makes another data set
    network_sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")
    network_share: float = Field(0.1, gt=0, lt=1)  # combined: of the first votes, the network's; the rest is motion's
    side: int = Field(128, ge=16)  # shorter side of the stored masks in pixels; never larger than the stored clip
    working_side: int = Field(
        240, ge=16
    )  # shorter side of the frames that masks are computed on; frames are only made smaller
    unlc: Preset = UNLC()  # fast (the default), paper, or a section
    device: Literal["cpu", "cuda"] = (
        "cpu"  # unlc, combined: cuda: the same method on the GPUs that a machine's workers share
    )
    # cuda: who makes the optical flow, the GPU's own engine or DIS on the CPU; None: the engine where there is one.
    # What it was is stored with the settings: other flow makes another data set
    flow: Literal["engine", "dis"] | None = None

    @model_validator(mode="after")
    def _device(self) -> Masks:
        if self.device == "cuda" and self.kind not in ("unlc", "combined"):
            raise ValueError(f"device=cuda belongs to kind=unlc or combined, and kind is {self.kind}; leave it out")
        if self.flow is not None and self.device == "cpu":
            raise ValueError("flow belongs to device=cuda; set device=cuda, or leave it out")
        return self

    @model_validator(mode="after")
    def _network(self) -> Masks:
        if self.asks_network and self.network is None:
            raise ValueError(f"kind={self.kind} needs a segmenter; give network=NAME.pt2, or package.module:function")
        for key in ("network", "network_sha256"):
            if not self.asks_network and getattr(self, key) is not None:
                raise ValueError(
                    f"{key} belongs to kind=network or combined, and kind is {self.kind}; set one of them, or leave it out"
                )
        return self

    @property
    def asks_network(self) -> bool:
        """Whether a segmenter takes part."""
        return self.kind in ("network", "combined")


class Ray(Config):
    """A Ray cluster that does the work of `executor: ray`."""

    address: str | None = (
        None  # "auto", HOST:PORT or ray://HOST:PORT of a running cluster; None: a local one is started
    )
    attempts: int = Field(5, ge=1)  # a film whose worker is lost (its machine went away) is tried so many times


# The public data sets whose folders are read as their authors distribute them, and the splits that each has.
Layout = Literal["ucf101", "hmdb51", "kth", "five_contexts"]
SPLITS: dict[str, tuple[int | str, ...]] = {
    "ucf101": (1, 2, 3),
    "hmdb51": (1, 2, 3),
    "kth": (1, "authors"),  # persons 1-16/17-25; the authors' 8 training, 8 validation, 9 test
    "five_contexts": (1,),
}


class Prepare(Config):
    """`prepare`: films in, shards out. Places are paths, or URLs that fsspec knows (s3://, https://)."""

    input: str | tuple[str, ...]  # folders, films, lists (.txt, .lst) or tables (.csv, .tsv, .parquet) of paths or URLs
    output: str
    columns: dict[str, str] | None = None  # {meaning: column} of a table, e.g. {path: Download URL, id: Photo ID}
    labels_file: str | None = "labels.csv"  # looked for in each input folder, and beside a film or list
    labels: dict[str, str] | None = None  # {label: column of labels.csv}; None: every column that has no other meaning
    boxes_file: str | None = "boxes.csv"  # likewise: boxes as true masks (path, frame, x0, y0, x1, y1 in pixels)
    layout: Layout | None = None  # labels, groups, splits as a public data set's own files say; labels.csv goes before
    layout_split: Literal[1, 2, 3, "authors"] = 1  # which of the official splits; `authors`: kth's 8/8/9 persons
    layout_boxes: Literal["thumos", "corrected"] | None = (
        None  # ucf101: the 24 classes that have boxes, and these, from THUMOS'13's XML or from finalAnnots.mat
    )
    optouts: str | None = (
        None  # a list of ids, sources or film ids that are never taken, beside those that were scrubbed
    )
    pictures: Literal["frames", "single"] = (
        "frames"  # a folder of pictures is one film, or each picture a clip of one frame
    )
    frames_fps: float = Field(24.0, gt=0)  # of folders of frames, which do not say it
    max_frames: int = Field(64, ge=1, le=4096)  # of a clip
    min_frames: int = Field(16, ge=1)  # a shorter rest of a shot is left out and counted
    max_film_frames: int = Field(1_000_000, ge=1)  # a longer film is read up to here, and the report says so
    max_film_bytes: int = Field(64 << 30, ge=1)  # a larger file is skipped
    max_pixels: int = Field(1 << 26, ge=1)  # of one frame (2^26 is 8192 x 8192); a film with more is skipped
    short_side: int = Field(128, ge=16)  # of stored clips in pixels; larger films are made smaller
    min_source_side: int = Field(32, ge=2)  # a film below it is skipped
    max_aspect: float = Field(5.0, gt=1)  # longer to shorter side; beyond it a film is skipped
    codec: Literal["vp9", "h264"] = "vp9"  # DALI decodes VP9 on CPU and GPU, H.264 on GPU only
    gop: int = Field(32, ge=1)  # frames between key frames
    shots: Shots = Shots()
    masks: Masks = Masks()
    prune: Pruning = Pruning()  # verdicts are stored; nothing is thrown away
    shard_bytes: int = Field(256 << 20, ge=1)  # a shard is closed when it has grown beyond this
    executor: Literal["local", "ray"] = "local"  # processes of this machine, or a Ray cluster
    ray: Ray = Ray()
    workers: int | None = Field(None, ge=1)  # processes; None: one a core
    time_limit: float = Field(600.0, gt=0)  # seconds without a sign of life after which a film is given up
    film_time_limit: float | None = Field(None, gt=0)  # seconds for one film altogether; None: as long as it gets on
    memory_limit: float = Field(4.0, gt=0)  # GiB of one process; a film that needs more is given up
    attempts: int = Field(5, ge=1)  # of reading a film over a network, with growing pauses
    scratch: str | None = None  # folder of each machine for films while they are read; None: the system's temporary one
    retry: bool = False  # try films again that an earlier run gave up (died, out of time)

    @model_validator(mode="after")
    def _lengths(self) -> Prepare:
        if self.min_frames > self.max_frames:
            raise ValueError(f"min_frames {self.min_frames} is larger than max_frames {self.max_frames}")
        return self

    @model_validator(mode="after")
    def _of_layout(self) -> Prepare:
        if self.layout is None:
            return self
        splits = SPLITS[self.layout]
        if self.layout_split not in splits:
            raise ValueError(f"layout_split {self.layout_split}: {self.layout} has {', '.join(map(str, splits))}")
        if self.layout_boxes is not None and self.layout != "ucf101":
            raise ValueError(f"layout_boxes is for layout ucf101; {self.layout} comes without boxes")
        return self

    @property
    def inputs(self) -> tuple[str, ...]:
        """The inputs as a tuple."""
        return self.input if isinstance(self.input, tuple) else (self.input,)

    @property
    def num_workers(self) -> int:
        """Processes to use on this machine."""
        return self.workers or len(os.sched_getaffinity(0))

    def shaping(self) -> dict[str, Any]:
        """What shapes the samples: the settings that one data set has in common, as JSON values."""
        # without a layout they say nothing, and data sets made before there were layouts do not have them
        unused = {"layout", "layout_split", "layout_boxes"} if self.layout is None else set[str]()
        found = self.model_dump(mode="json", exclude=LOCAL | unused)
        del found["masks"]["network"]  # where it lies; what it is, its digest says
        if not self.masks.asks_network:
            del found["masks"]["network_sha256"]  # likewise, for networks
        for key, before in (("shrink", 1), ("connected", True)):  # in data sets from before there were these keys
            if getattr(self.masks.unlc.superpixels, key) == before:
                del found["masks"]["unlc"]["superpixels"][key]
        if self.masks.kind != "combined":
            del found["masks"]["network_share"]
        assert found["masks"].get("network_sha256", "unused"), "masks.settled comes first"
        if self.masks.device == "cpu":
            del found["masks"]["device"], found["masks"]["flow"]  # likewise, for GPUs
        assert found["masks"].get("flow", "unused"), "unlc.device.with_device comes first"
        return found


class Plan(Prepare):
    """`plan`: what `prepare` would cost, from a sample that is really made. Takes all keys of `prepare`."""

    output: str = ""  # not written to
    films: int | None = Field(None, ge=1)  # to predict for; None: all that the input holds
    sample: int = Field(24, ge=2)  # films that are made, chosen at random
    seed: int = Field(0, ge=0)
    cores: int | None = Field(None, ge=1)  # of the cluster that would do it; None: as many as are measured on
    core_hour: float = Field(0.04, ge=0)  # price of a core for an hour
    gpu_hour: float = Field(3.0, ge=0)  # price of a GPU for an hour, where masks.device=cuda


# What says where films come from and who does the work, but not what becomes of them.
LOCAL = {
    "input",
    "output",
    "columns",
    "labels_file",
    "boxes_file",
    "optouts",
    "executor",
    "ray",
    "workers",
    "time_limit",
    "film_time_limit",
    "memory_limit",
    "attempts",
    "scratch",
    "retry",
}


class Verify(Config):
    """`verify`: prove that a data set is what it says."""

    path: str  # the data set's folder, or its URL
    snapshot: str = "latest"
    decode: int = Field(200, ge=0)  # clips whose frames are decoded and counted, evenly spread; 0: none
    decoders: tuple[Literal["pyav", "dali", "opencv", "torchcodec", "decord"], ...] | None = (
        None  # PyAV always, and these; None: all that can be loaded here
    )
    max_problems: int = Field(100, ge=1)  # printed; all are counted


class Repair(Config):
    """`repair`: put a data set right again, from its own tars and, where there is `input`, from its films."""

    path: str  # the data set's folder, or its URL
    input: str | tuple[str, ...] | None = None  # as `prepare` had it: damaged clips are made again; None: dropped
    columns: dict[str, str] | None = None  # likewise
    labels_file: str | None = "labels.csv"  # likewise
    boxes_file: str | None = "boxes.csv"  # likewise
    network: str | None = None  # the segmenter's file, where a network made the masks and `input` is given
    decode: bool = False  # decode every clip, also those whose checksums hold
    max_dropped: float = Field(0.1, ge=0, le=1)  # share of the clips; where more would be dropped, nothing is done
    workers: int | None = Field(None, ge=1)  # processes that make films again; None: one a core
    scratch: str | None = None  # folder for shards and films while they are made; None: the system's temporary one
    dry_run: bool = False  # say what is wrong, and change nothing


class Scrub(Config):
    """`scrub`: remove films whose owners opted out, and keep them out."""

    path: str  # the data set's folder, or its URL
    ids: str  # a file, or its URL: one id a line (the user's own, a source, or a film id)


class Stats(Config):
    """`stats`: what a data set holds, in figures."""

    path: str  # the data set's folder, or its URL
    snapshot: str = "latest"
    format: Literal["text", "json"] = "text"  # json: one object, for scripts


class Inspect(Config):
    """`inspect`: a page of a data set: figures, clips with mask overlays, what was left out and why."""

    path: str  # the data set's folder, or its URL
    snapshot: str = "latest"
    output: str | None = (
        None  # an .html page, or a .png sheet of clips alone; None: inspect.html in the data set's folder
    )
    clips: int = Field(24, ge=1)  # chosen at random among those that the pruning rules keep (on a sheet: among all)
    rejected: int = Field(4, ge=0)  # of each reason for which they would not keep a clip
    films: int = Field(100, ge=0)  # that were not used, listed with their reasons; all are counted
    groups: int = Field(12, ge=0)  # of near-duplicate films
    frames: int = Field(8, ge=1)  # per clip
    height: int = Field(96, ge=16)  # of a picture in pixels
    seed: int = Field(0, ge=0)  # which clips
    max_bytes: int = Field(8 << 20, ge=0)  # of the page: clips beyond it are shown as stills only
