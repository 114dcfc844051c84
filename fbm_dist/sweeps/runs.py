"""The runs of a sweep: the swept config with a trial's values, checked before anything starts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fbm_dist
from data_tools.places import write_atomic
from fbm_dist.config import ConfigError, dump, load
from fbm_dist.data.index.index import Index
from fbm_dist.run import absolute
from fbm_dist.schema import Run
from fbm_dist.sweeps.config import Sweep
from fbm_dist.training.engines.engine import accumulation_steps

TRIALS = "trials"
CONFIG = "trial.yaml"
DOOR = Path(fbm_dist.__file__).parent.parent / "launch" / "pretrain.py"  # the same on all nodes


@dataclass(frozen=True)
class Runs:
    """Makes the run of each trial.

    Attributes:
        sweep: its config.
        folder: the sweep's, absolute.
    """

    sweep: Sweep
    folder: Path

    def folder_of(self, number: int) -> Path:
        """Where trial `number` runs: an ordinary run folder."""
        return self.folder / TRIALS / f"{number:04d}"

    def base(self) -> Run:
        """The run without the values of any trial, as the config file and the sections have it.

        Raises:
            ConfigError: file or sections are no run.
        """
        return self._load({}, self.folder, "base")

    def of(self, number: int, values: Mapping[str, Any]) -> Run:
        """The run of trial `number`, its paths absolute.

        Raises:
            ConfigError: these values make no run; ValueError: they make one that cannot be trained.
        """
        told = ", ".join(f"{key}={shown(value)}" for key, value in values.items())
        run = self._load(values, self.folder_of(number), f"{self.folder.name} {number:04d} {told}"[:200])
        run.objective.check_clip(run.data.clip)
        accumulation_steps(run.training, self.sweep.resources.num_processes)
        return absolute(run)

    def write(self, number: int, run: Run) -> Path:
        """The config of trial `number` in its folder, as `launch/pretrain.py` takes it."""
        path = self.folder_of(number) / CONFIG
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, dump(run).encode())
        return path

    def _load(self, values: Mapping[str, Any], folder: Path, name: str) -> Run:
        given = [*self.sweep.overlaid(), *values.items(), ("run.folder", str(folder)), ("run.name", name)]
        # nobody registers but the sweep, once
        tracking = [] if name == "base" else [("tracking.register_as", None)]
        return load(Run, self.sweep.pretrain, [f"{key}={json.dumps(value)}" for key, value in [*given, *tracking]])


def check_base(sweep: Sweep, run: Run) -> None:
    """What would make every trial fail, said once and before the first.

    Raises:
        ConfigError: the metric needs a section that the run has not, or ASHA does not know the length.
        ValueError: there are no such data.
    """
    metric = sweep.metric.name
    for prefix, section, example in (("validation/", run.validation, "every=100"), ("probe/", run.probe, "every=100")):
        if metric.startswith(prefix) and section is None and not any(k.startswith(prefix[:-1]) for k in sweep.space):
            name = prefix[:-1]
            raise ConfigError(f"metric.name={metric}: the run has no {name} section; give one, e.g. {name}.{example}")
    if sweep.asha and sweep.asha.max_steps is None and run.training.steps is None:
        raise ConfigError("asha.max_steps is missing, and the run trains for epochs; give the steps of a whole trial")
    index = Index.open(run.data.path, run.data.snapshot)
    del index


def shown(value: Any) -> str:
    """A value in a table or a name: short."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)
