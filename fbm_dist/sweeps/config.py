"""The config of a sweep: which run, which keys take which values, how they are searched, and what a trial may use. Imports no Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from data_tools.config import Config
from fbm_dist.sweeps.search.space import KINDS, Dimension, Grid

OWN = ("run.folder", "run.name")  # of each trial: the sweep gives them
SECTIONS = (
    "run",
    "objective",
    "data",
    "optimizer",
    "schedule",
    "players",
    "training",
    "init_from",
    "validation",
    "probe",
    "tracking",
)


def _dimension(value: Any) -> Any:
    """`{loguniform: [lo, hi]}` -> LogUniform: the one key says which. What is wrong is told as that kind's own error."""
    if not isinstance(value, dict):
        return value
    if len(value) != 1 or not set(value) <= set(KINDS):
        raise ValueError(f"give one of {', '.join(f'{{{name}: [...]}}' for name in KINDS)}")
    ((name, content),) = value.items()
    if not isinstance(content, list):
        raise ValueError(f"{name} takes a list, e.g. {{{name}: [0.1, 1.0]}}")
    return KINDS[name].model_validate({name: tuple(content)}, strict=False)


def _flat(value: Any) -> Any:
    """Keys may be given dotted or nested, as `space.optimizer.lr={...}` on the command line makes them."""
    if not isinstance(value, dict):
        return value
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        nested = isinstance(inner, dict) and inner and all(isinstance(v, dict) for v in inner.values())
        flat |= {f"{key}.{name}": found for name, found in _flat(inner).items()} if nested else {key: inner}
    return flat


class Metric(Config):
    """The number that a trial is judged by: one of metrics.jsonl."""

    name: str = "validation/loss"
    mode: Literal["min", "max"] = "min"
    # last: the run's last value; best: its best one (then let the run keep those weights: validation.keep=best)
    at: Literal["last", "best"] = "last"


class Asha(Config):
    """Bad trials end early (Li et al., A System for Massively Parallel Hyperparameter Tuning, 2020).

    At `grace` steps, then at `reduction` times as many and so on, a trial goes on if it is among the best 1 / `reduction` of those
    that have come so far.
    """

    grace: int = Field(ge=1)  # steps that every trial is given
    reduction: float = Field(3.0, gt=1)
    max_steps: int | None = Field(None, ge=1)  # of a whole trial; None: training.steps


class Resources(Config):
    """What one trial uses, on one node."""

    cpus: float = Field(1.0, gt=0)  # cores
    gpus: float = Field(0.0, ge=0)  # 0.5: two trials share a GPU
    processes: int | None = Field(None, ge=1)  # None: one a GPU, one without; several start by the deepspeed launcher
    grace: float = Field(120.0, gt=0)  # seconds that a trial has to save itself when it is stopped

    @model_validator(mode="after")
    def _whole(self) -> Resources:
        if self.gpus > 1 and self.gpus != int(self.gpus):
            raise ValueError(f"gpus={self.gpus:g}: a trial takes whole GPUs, or a share of one")
        if self.gpus and self.num_processes != max(1, int(self.gpus)):
            raise ValueError(f"processes={self.processes} with gpus={self.gpus:g}: a process takes one GPU")
        return self

    @property
    def num_processes(self) -> int:
        """Ranks of a trial."""
        return self.processes or max(1, int(self.gpus))


class Cluster(Config):
    """Where trials run."""

    address: str | None = None  # auto, or HOST:PORT of a running Ray cluster; None: this machine


class Sweep(Config):
    """Everything that `launch/sweep.py` reads. The sections of a run (data, training, ...) are laid over the swept config's."""

    pretrain: Path  # config of launch/pretrain.py that is swept, as on the command line: relative to the working folder
    # dotted key of the run -> what it may be: a grid or choice of a list, uniform or loguniform or randint between two bounds, or
    # quniform with low, high and step
    space: Annotated[
        dict[str, Annotated[SerializeAsAny[Dimension], BeforeValidator(_dimension)]], BeforeValidator(_flat)
    ] = Field(min_length=1)
    search: Literal["grid", "random", "optuna"] = "random"  # grid: all combinations; optuna: its TPE sampler
    trials: int | None = Field(None, ge=1)  # random, optuna: how many; more than before go on with a finished sweep
    seed: int = Field(0, ge=0)  # of the search; a run's own is run.seed
    metric: Metric = Metric()
    asha: Asha | None = None  # None: every trial runs to its end
    resources: Resources = Resources()
    parallel: int | None = Field(None, ge=1)  # trials at a time; None: as many as there is room for
    retries: int = Field(
        2, ge=0
    )  # of a trial that was killed, hung or lost its node; what cannot succeed is not tried again
    rerun_failed: bool = False  # trials that failed or diverged get another try
    checkpoints: Literal["keep", "drop"] = (
        "keep"  # drop: those of a trial that has ended and is not the best are removed
    )
    alias: str = "challenger"  # that the best encoder's version gets, under the run's tracking.register_as
    output: Path = Path("runs/sweep")  # the same folder again: the sweep goes on; all nodes must see it
    ray: Cluster = Cluster()

    run: Any = {}
    objective: Any = {}
    data: Any = {}
    optimizer: Any = {}
    schedule: Any = {}
    players: Any = {}
    training: Any = {}
    init_from: Any = {}
    validation: Any = {}
    probe: Any = {}
    tracking: Any = {}

    @model_validator(mode="after")
    def _searchable(self) -> Sweep:
        for key, dimension in self.space.items():
            if (self.search == "grid") != isinstance(dimension, Grid):
                kind = next(name for name, model in KINDS.items() if isinstance(dimension, model))
                advice = "give {grid: [...]}" if self.search == "grid" else "write choice, or set search=grid"
                raise ValueError(f"space: {key} is {kind}, which search={self.search} cannot use; {advice}")
        if (self.search == "grid") == (self.trials is not None):
            raise ValueError(
                "search=grid runs all combinations; leave trials out"
                if self.search == "grid"
                else f"search={self.search} needs to know how many trials; give trials, e.g. trials=20"
            )
        return self

    @model_validator(mode="after")
    def _free(self) -> Sweep:
        for key in self.space:
            first = key.split(".")[0]
            if first not in SECTIONS:
                raise ValueError(f"space: {key} is no key of a run; its first word is one of {', '.join(SECTIONS)}")
        given = [*self.space, *(key for key, _ in self.overlaid())]
        for own in OWN:
            if any(key == own or (own.startswith(f"{key}.") and key in self.space) for key in given):
                raise ValueError(f"{own} is for the sweep to give; set output for its folder")
        return self

    def overlaid(self) -> list[tuple[str, Any]]:
        """(dotted key, value) of all that the sections say, which is the same for every trial."""
        return [pair for name in SECTIONS for pair in _leaves(getattr(self, name), name)]


def _leaves(value: Any, key: str) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [pair for name, inner in value.items() for pair in _leaves(inner, f"{key}.{name}")]
    return [(key, value)]
