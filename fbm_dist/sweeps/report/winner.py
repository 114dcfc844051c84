"""best.yaml: the winning run as a config for launch/pretrain.py."""

from __future__ import annotations

from pathlib import Path

from data_tools.places import write_atomic
from fbm_dist.config import dump, load
from fbm_dist.schema import Run
from fbm_dist.sweeps.config import Sweep
from fbm_dist.sweeps.record import Trial
from fbm_dist.sweeps.runs import CONFIG, shown


def write_best(sweep: Sweep, base: Run, best: Trial, folder: Path) -> Path:
    """Its values in the whole config, with a folder of its own and the swept run's registered name.

    The trial itself registered nothing: this is the config of a run that does.
    """
    run = load(Run, Path(best.folder) / CONFIG)
    run = run.model_copy(
        update={
            "run": run.run.model_copy(update={"folder": folder / "best", "name": f"{folder.name} best"}),
            "tracking": run.tracking.model_copy(update={"register_as": base.tracking.register_as}),
        }
    )
    values = ", ".join(f"{key}={shown(value)}" for key, value in best.values.items())
    head = (
        f"# The best of sweep {folder.name}: trial {best.number:04d}, {sweep.metric.name} {best.metric:.6g} with {values}.\n"
        f"# Command: {command(sweep, folder / 'best.yaml')}\n"
    )
    path = folder / "best.yaml"
    write_atomic(path, (head + dump(run)).encode())
    return path


def command(sweep: Sweep, config: Path) -> str:
    """How a user starts this config as the trials were started."""
    processes = sweep.resources.num_processes
    if processes == 1:
        return f"python launch/pretrain.py {config}"
    count = f"--num_gpus {processes}" if sweep.resources.gpus else f"--num_accelerators {processes}"
    return f"deepspeed {count} launch/pretrain.py {config}"
