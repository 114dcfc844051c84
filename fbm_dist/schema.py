"""The image of a YAML file: every key that a training or evaluation config may have. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, NonNegativeFloat, NonNegativeInt, model_validator

from data_tools.config import Config, Where
from data_tools.prune import Pruning
from fbm_dist.objectives.classifier.config import ClassifierConfig
from fbm_dist.objectives.families import DEFAULT, Pretraining

AnyObjective = Annotated[Pretraining | ClassifierConfig, Field(discriminator="family")]


class Degrade(Config):
    """How the masks that a clip shows are made worse on purpose: what is their quality worth? (Watching objects move, 4.3, Figures 4-5)

    What is drawn is drawn once a clip, from seed, epoch and position. True masks (`truth`) stay as they are. Boxes stand, frame by
    frame, around what scores above 0.5; a frame with nothing of the kind is truncated by nothing, and its filled box is empty.
    """

    # boundary: eroded or dilated, at random; truncate: a strip of the box at one of its four sides, at random, becomes 0;
    # box: the filled box, as annotated boxes are; full: 1 everywhere, as if nothing had been segmented
    kind: Literal["boundary", "truncate", "box", "full"]
    kernel: int | None = Field(None, ge=1)  # boundary: side of the square, odd, in pixels of the clip's `size`
    share: float | None = Field(None, gt=0, lt=1)  # truncate: of the box's area, to the nearest whole row or column

    @model_validator(mode="after")
    def _fits(self) -> Degrade:
        for kind, key, value in (("boundary", "kernel", self.kernel), ("truncate", "share", self.share)):
            if self.kind == kind and value is None:
                raise ValueError(f"kind={kind} needs {key}; give it, e.g. {key}={5 if key == 'kernel' else 0.3}")
            if self.kind != kind and value is not None:
                raise ValueError(f"{key} belongs to kind={kind}, and kind is {self.kind}; leave it out")
        if self.kernel is not None and self.kernel % 2 == 0:
            raise ValueError(
                f"kernel={self.kernel} has no middle pixel; give an odd one, {self.kernel - 1} or {self.kernel + 1}"
            )
        return self


class ClipSpec(Config):
    """Which frames of a stored clip make a training clip, and what is done to them. Frames and masks move in lock-step.

    The frames of one clip start at a frame t of the stored clip (`window`), and are one of
        t, t + stride, t + 2 * stride, ...       the default;
        t + offsets[0], t + offsets[1], ...      with `offsets`: [0, 1, 20] are the neighbours and the far frame of the quadruplet loss;
        `frames` random frames of t ... t + within - 1, in random order, with `within` (DrNet: 4 of 20).
    `negative` adds one frame of another film at the end (the quadruplet loss).
    """

    frames: int = Field(16, ge=1)  # taken from one stored clip
    stride: int = Field(1, ge=1)  # frames between two of them
    offsets: tuple[NonNegativeInt, ...] = ()  # ascending, from 0; as many as `frames`
    within: int | None = Field(None, ge=1)  # `frames` different ones of so many
    negative: bool = False  # one more frame, the last: of another film, chosen at random
    size: int = Field(128, ge=16)  # side of the square in pixels
    # squash: the whole frame, aspect not kept (FBM); crop: a square (`crop_share`, `crop_at`); box: a jittered square around the mask
    resize: Literal["squash", "crop", "box"] = "squash"
    crop_share: float = Field(1.0, gt=0, le=1)  # crop: side of the square as a share of the frame's shorter side
    crop_at: Literal["centre", "random"] = "centre"  # crop: where it is
    # box: share of the square's side that the longer side of the mask's box takes (DeepMask: 128 of 224 pixels)
    box_share: float = Field(128 / 224, gt=0, le=1)
    box_scale: float = Field(0.25, ge=0)  # box: octaves by which the square is larger or smaller, at most
    box_shift: float = Field(16 / 224, ge=0, le=1)  # box: share of its side by which it is off the centre, at most
    window: Literal["random", "centre"] = "random"  # where in the stored clip the frames start
    mask: bool = True  # soft masks are needed
    truth: bool = False  # true masks are wanted where the data set has them
    use_truth_as_mask: bool = False  # supervised variant: the true mask takes the place of the soft one
    degrade: Degrade | None = None  # the mask, soft or true, is made worse after the clip was cut; None: as it is
    reverse: float = Field(0.0, ge=0, le=1)  # probability of temporal reversal
    mirror: float = Field(0.0, ge=0, le=1)  # probability of a horizontal flip
    # clips of one frame: an epoch is so many frames of every shot, spread evenly over it; None: one random frame of each stored clip
    frames_per_shot: int | None = Field(None, ge=1, le=1000)

    @model_validator(mode="after")
    def _fits(self) -> ClipSpec:
        if self.frames_per_shot is not None and (self.frames != 1 or self.negative or self.within is not None):
            raise ValueError(
                f"frames_per_shot takes single frames, and frames is {self.length}; set frames=1 and nothing else, or leave it out"
            )
        if sum((self.stride > 1, bool(self.offsets), self.within is not None)) > 1:
            raise ValueError("stride, offsets and within are three ways to space the frames; give one")
        if self.offsets and (self.offsets[0] or list(self.offsets) != sorted(set(self.offsets))):
            raise ValueError(f"offsets={list(self.offsets)}: they must begin with 0 and rise, e.g. [0, 1, 20]")
        if self.offsets and len(self.offsets) != self.frames:
            raise ValueError(f"offsets are {len(self.offsets)} frames, and frames is {self.frames}; make them agree")
        if self.within is not None and self.within < self.frames:
            raise ValueError(f"within={self.within} does not hold {self.frames} different frames")
        if self.resize == "box" and not (self.mask or self.use_truth_as_mask):
            raise ValueError("resize=box cuts around the mask; set mask=true, or another resize")
        if self.resize != "crop" and (self.crop_share != 1 or self.crop_at != "centre"):
            raise ValueError(f"crop_share and crop_at belong to resize=crop, and resize is {self.resize}")
        return self

    @model_validator(mode="after")
    def _degrades(self) -> ClipSpec:
        if self.degrade is None:
            return self
        if not (self.mask or self.use_truth_as_mask):
            raise ValueError("degrade changes masks, and there are none; set mask=true, or leave degrade out")
        if (self.degrade.kernel or 0) > self.size:
            raise ValueError(
                f"degrade.kernel={self.degrade.kernel} is larger than a frame of size={self.size}; give a smaller one"
            )
        if self.degrade.kind == "full" and self.resize == "box":
            raise ValueError(
                "degrade.kind=full does without segmentation, and resize=box cuts around it; give another resize"
            )
        return self

    @property
    def span(self) -> int:
        """Stored frames that one clip covers."""
        if self.within is not None:
            return self.within
        return self.offsets[-1] + 1 if self.offsets else (self.frames - 1) * self.stride + 1

    @property
    def length(self) -> int:
        """T: the frames that come out."""
        return self.frames + self.negative

    @property
    def plain(self) -> ClipSpec:
        """The same without augmentation, for looks and evaluation: centre window and crop, evenly spaced in place of random frames.

        `degrade` stays, for the losses of validation are to be those of training; what it draws is fixed for each clip of a pass.
        """
        spaced = {"within": None, "stride": self.within // self.frames} if self.within is not None else {}
        return self.model_copy(
            update={
                "window": "centre",
                "crop_at": "centre",
                "box_scale": 0.0,
                "box_shift": 0.0,
                "reverse": 0.0,
                "mirror": 0.0,
            }
            | spaced
        )

    @property
    def pictures(self) -> ClipSpec:
        """`plain` and without what only a loss needs, masks and other films: for features. A box becomes the centre."""
        nothing = {
            "mask": False,
            "truth": False,
            "use_truth_as_mask": False,
            "degrade": None,
            "negative": False,
            "frames_per_shot": None,
        }
        return self.plain.model_copy(update=nothing | ({"resize": "crop"} if self.resize == "box" else {}))


def _preset(value: Any) -> Any:
    """The rules that a name stands for: what is kept (and hashed) is their numbers."""
    if not isinstance(value, str):
        return value
    if value not in ("mild", "paper"):
        raise ValueError("give mild, paper, or a section of rules, e.g. {min_foreground: 0.05}")
    return Pruning.paper() if value == "paper" else Pruning()


class Filter(Config):
    """Which clips of the data set take part. All conditions must hold; none given: all clips."""

    split: str | None = None  # the `split` of the data set, e.g. train
    groups: tuple[str, ...] = ()  # only these groups
    exclude_groups: tuple[str, ...] = ()
    exclude_keys: Where | None = None  # text file, one key a line: opted-out clips
    labelled: str | None = None  # only clips that have this label
    # share of the groups (films that belong together) left out, chosen by hash of the name
    hold_out: float = Field(0.0, ge=0, lt=1)
    held_out: bool = False  # True: exactly what `hold_out` leaves out, e.g. for validation
    pruned: bool = False  # True: leave out the clips that the stored pruning rules would not keep
    # likewise by these rules, on the stored statistics: mild, paper, or a section (what it does not say is mild); None: off
    rules: Annotated[Pruning, BeforeValidator(_preset)] | None = None


class Portion(Config):
    """A further data set, mixed into the stream."""

    path: Where
    snapshot: str = "latest"
    filter: Filter = Filter()
    weight: float = Field(1.0, gt=0)  # share of the stream: weight / sum of all weights


class Data(Config):
    """Where clips come from and how they are read."""

    path: Where  # folder that `python -m data_tools prepare` wrote, or its URL (s3://bucket/folder)
    snapshot: str = "latest"
    filter: Filter = Filter()
    weight: float = Field(1.0, gt=0)  # of `path` beside those of `mix`
    mix: tuple[Portion, ...] = ()  # further data sets for training; validation and probes look at `path` alone
    clip: ClipSpec = ClipSpec()
    # global: any clip may come after any other; blocks: the clips of `block` shards are shuffled together, for shards in object
    # storage; auto: blocks where the shards are in object storage, else global
    shuffle: Literal["auto", "global", "blocks"] = "auto"
    block: int = Field(16, ge=1)  # shards
    cache_gb: float | None = Field(
        None, gt=0
    )  # disk for shards of object storage, a node; None: half of what is free, 200 at most
    # auto: the fastest of those that can, measured once; dali: NVDEC on a GPU, else DALI's CPU decoder (VP9)
    decode: Literal["auto", "dali", "dali-mixed", "dali-cpu", "pyav"] = "auto"
    workers: int | None = Field(None, ge=1)  # reader processes per rank; None: by the machine
    threads: int | None = Field(None, ge=1)  # decoding threads per rank; None: by the machine
    prefetch: int | None = Field(None, ge=1)  # batches read ahead; None: by the machine
    max_undecodable: float = Field(0.01, gt=0, le=1)  # stop when a larger share of clips cannot be decoded ...
    undecodable_window: int = Field(1000, ge=1)  # ... among so many

    @property
    def portions(self) -> tuple[Data | Portion, ...]:
        """All data sets of the mixture, `path` first."""
        return (self, *self.mix)


class ParameterGroup(Config):
    """Parameters that are optimised with other factors than the rest. The first group whose pattern is found in the name takes it."""

    pattern: str  # regular expression, searched in the parameter's full name, e.g. "^trunk\\." or "bias$"
    lr: float = Field(1.0, ge=0)  # factor on the learning rate; 0 freezes
    weight_decay: float | None = Field(None, ge=0)  # factor on the weight decay; None: the objective's own


class Optimizer(Config):
    """Each player has an optimizer of its own, with these settings (`players` gives one player others)."""

    kind: Literal["adam", "adamw", "sgd"] = "adam"  # adam: L2 coupled into the gradient, as the FBM code has it
    lr: float = Field(1e-4, gt=0)
    lr_batch: int | None = Field(None, ge=1)  # clips a step that `lr` was chosen for; None: `lr` is used as it is
    lr_scaling: Literal["linear", "sqrt"] = "sqrt"  # lr * (global_batch / lr_batch), or its root (Adam, AdamW)
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(1e-8, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)  # sgd only
    weight_decay: float = Field(1e-3, ge=0)
    groups: tuple[ParameterGroup, ...] = ()


class Schedule(Config):
    """Learning rate as a pure function of the step: linear warm-up, then decay."""

    warmup_steps: int = Field(0, ge=0)
    decay: Literal["constant", "cosine", "step", "exponential", "piecewise"] = "constant"
    floor: float = Field(0.0, ge=0, le=1)  # cosine: final share of the peak
    gamma: float = Field(0.5, gt=0, le=1)  # step: factor every `every` steps; exponential: the same, continuously
    every: int = Field(100_000, ge=1)
    # piecewise: (steps after the warm-up, share of the peak from there on)
    milestones: tuple[tuple[NonNegativeInt, NonNegativeFloat], ...] = ()

    @model_validator(mode="after")
    def _milestones(self) -> Schedule:
        if (self.decay == "piecewise") != bool(self.milestones):
            raise ValueError("schedule.decay=piecewise and schedule.milestones belong together")
        return self


class Player(Config):
    """One player's own optimizer and schedule, in place of the run's. None: the run's."""

    optimizer: Optimizer | None = None
    schedule: Schedule | None = None


class Guard(Config):
    """What happens to an update that would do harm. A gradient that is not finite is always skipped, on every rank."""

    # skip an update whose loss is more than this many MADs above the median; None: off
    spike: float | None = Field(None, gt=0)
    window: int = Field(100, ge=10)  # steps that median and MAD are taken over
    rollback_after: int = Field(10, ge=1)  # skipped in a row: back to the weights of the last checkpoint, data go on
    max_rollbacks: int = Field(3, ge=0)  # more than this, with no 10 windows of applied updates since: the run ends


class Training(Config):
    """How the objective is minimised."""

    steps: int | None = Field(None, ge=1)  # optimizer steps; exactly one of steps and epochs
    epochs: float | None = Field(None, gt=0)
    global_batch: int = Field(40, ge=1)  # clips per optimizer step over all processes
    micro_batch: int = Field(10, ge=1)  # clips per process and forward; the rest is gradient accumulation
    engine: Literal["deepspeed", "torch"] = "deepspeed"
    zero_stage: Literal[0, 1, 2, 3] = 1
    precision: Literal["fp32", "bf16"] = "fp32"  # bf16: autocast, fp32 master weights
    # global L2 norm per player; None: off, said explicitly to DeepSpeed
    gradient_clipping: float | None = Field(None, gt=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = Field(None, ge=1)  # torch threads per process; None: cores / processes of this machine
    deepspeed: dict[
        str, Any
    ] = {}  # merged into DeepSpeed's config, e.g. {zero_optimization: {offload_optimizer: {device: cpu}}}
    sync_batchnorm: bool = False  # statistics over micro_batch clips of every process, instead of each its own
    # exponential moving average of the weights; it is what is kept; None: off
    ema_decay: float | None = Field(None, gt=0, lt=1)
    guard: Guard = Guard()
    checkpoint_every: int = Field(500, ge=1)  # steps
    keep_checkpoints: int = Field(2, ge=1)  # the newest ones; the best by validation is kept beside them
    async_checkpoints: bool = True  # written by a thread while training goes on
    checkpoint_mirror: str | None = None  # also to this fsspec URL, e.g. s3://bucket/run
    # seconds without progress after which a run names the rank that hangs, and ends
    hang_timeout: float = Field(900.0, gt=0)
    preflight: Literal["on", "only", "off"] = "on"  # checks before the first step; only: nothing else
    log_every: int = Field(10, ge=1)
    picture_every: int = Field(500, ge=0)  # steps; 0: never

    @model_validator(mode="after")
    def _one_length(self) -> Training:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give exactly one of training.steps and training.epochs")
        return self


class Tracking(Config):
    """Where metrics and encoders go. The server's address comes from MLFLOW_TRACKING_URI; default: SQLite in the working folder."""

    mlflow: bool = True
    uri: str | None = None  # None: MLFLOW_TRACKING_URI, else sqlite:///mlflow.db
    experiment: str = "fbm"
    register_as: str | None = None  # name in the model registry; None: the encoder stays in the run folder


class InitFrom(Config):
    """Weights that a new run starts from."""

    source: (
        str  # models:/name@alias, models:/name/version, a run's folder, a checkpoint's folder, or a .safetensors file
    )
    only: tuple[str, ...] = ()  # prefixes of the names here, after `rename`; empty: all that fit
    rename: dict[str, str] = {}  # prefix there -> prefix here
    ema: bool = True  # a checkpoint's averaged weights, where it has them


class Validation(Config):
    """Losses on clips that are not trained on, while training; all ranks share the pass."""

    every: int = Field(500, ge=1)  # steps
    # share of the groups left out of training (the paper's 10 %); 0: `filter` alone decides
    hold_out: float = Field(0.1, ge=0, lt=1)
    # which clips validate (with hold_out, of its held-out groups); None: those held out of data.filter
    filter: Filter | None = None
    max_clips: int | None = Field(None, ge=1)  # so many, spread over the data set by a fixed shuffle; None: all
    metric: str = "loss"  # the term that is to fall
    patience: int | None = Field(None, ge=1)  # early stopping: validations in a row without improvement; None: off
    min_improvement: float = Field(0.0, ge=0)  # of the metric
    keep: Literal["last", "best"] = "last"  # whose weights become the encoder


class Probe(Config):
    """How well the features tell a label apart, while training: k nearest neighbours and a linear probe on a labelled data set."""

    every: int = Field(1000, ge=1)  # steps
    path: Where | None = None  # a labelled data set; None: data.path
    filter: Filter = Filter()
    label: str | None = None  # None: "action", else "label", else the data set's only label
    neighbours: int = Field(20, ge=1)  # k; by cosine similarity, votes weighted by exp(similarity / 0.07)
    linear: bool = False  # a linear probe beside it
    max_clips: int | None = Field(None, ge=1)  # so many, spread over the data set by a fixed shuffle; None: all


class RunFolder(Config):
    """What identifies a run. The same folder again means: go on where it stopped."""

    folder: Path
    name: str | None = None  # None: the folder's name
    seed: int = Field(0, ge=0)


class Run(Config):
    """One pretraining (or fine-tuning) run: everything that `launch/pretrain.py` reads."""

    run: RunFolder
    objective: AnyObjective = DEFAULT
    data: Data
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    players: dict[str, Player] = {}  # by the player's name; settings of its own
    training: Training
    init_from: str | InitFrom | None = None  # the source alone, or a section
    validation: Validation | None = None
    probe: Probe | None = None
    tracking: Tracking = Tracking()

    @property
    def initial(self) -> InitFrom | None:
        """`init_from`, whichever way it was given."""
        return InitFrom(source=self.init_from) if isinstance(self.init_from, str) else self.init_from


class LinearProbe(Config):
    """Logistic regression on frozen, standardised features."""

    c: float = Field(1.0, gt=0)  # inverse L2 strength
    max_iterations: int = Field(2000, ge=1)
