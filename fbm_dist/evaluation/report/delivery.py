"""The end of every protocol: files, the console, and a run in MLflow under the evaluated model's version."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from fbm_dist.evaluation.config import Evaluation
from fbm_dist.evaluation.report.publish import publish
from fbm_dist.evaluation.report.results import Results
from fbm_dist.evaluation.report.text import show, write
from fbm_dist.training.distributed import World

WIDTH = 120  # of the table in a log, where no terminal says how wide it is
LIBRARIES = ("torch", "scikit-learn", "numpy", "mlflow")


def deliver(
    evaluation: Evaluation, world: World, make: Callable[[], tuple[Results, Sequence[Path]]], *, data: str = ""
) -> Results:
    """Assemble the results on rank 0, hand them out, and give them to every rank.

    Args:
        make: called on rank 0: the results, and the files (figures, pages) that it wrote beside them.
        data: what was evaluated on, for the model's tags.
    Raises:
        ValueError: MLflow does not answer, or `make` refuses; on every rank.
    """
    found: Results | None = None
    with world.agreed():
        if world.first:
            found, further = make()
            files = [*write(found, evaluation.output), *further]
            show(found, Console() if sys.stdout.isatty() else Console(width=WIDTH))
            print(f"written: {', '.join(map(str, files))}", flush=True)
            if evaluation.tracking.mlflow:
                publish(evaluation, found, files, data)
    shared = world.broadcast(found)
    assert shared is not None
    return shared


def facts(evaluation: Evaluation, world: World, seconds: float, **further: Any) -> dict[str, Any]:
    """What `Results.facts` of every protocol says: the config, versions, processes, seconds; and `further`."""
    return {
        "config": evaluation.model_dump(mode="json"),
        **further,
        "seconds": round(seconds, 1),
        "processes": world.size,
        "versions": {name: version(name) for name in LIBRARIES},
    }
