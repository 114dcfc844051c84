"""The methods that a config names, in the order of the tables."""

from __future__ import annotations

from fbm_dist.evaluation.segmentation.config import Segmentation
from fbm_dist.evaluation.segmentation.methods.implicit import (
    ImplicitForeground,
    of_run,
    version_of,
    with_random_weights,
)
from fbm_dist.evaluation.segmentation.methods.method import Method
from fbm_dist.evaluation.segmentation.methods.motion import MotionMasks
from fbm_dist.evaluation.segmentation.methods.network import ExportedNetwork
from fbm_dist.evaluation.segmentation.methods.trivial import AllForeground, CentreBox, ResidualFlow
from fbm_dist.training.distributed import World


def methods_of(evaluation: Segmentation, world: World) -> list[Method]:
    """Baselines first, then random weights, then what is under test. Every rank calls it.

    Raises:
        ValueError: a network or run that cannot be used, or two that have one name.
    """
    made = {"flow": lambda: ResidualFlow(evaluation.side), "centre": CentreBox, "all": AllForeground}
    found: list[Method] = [made[name]() for name in ("all", "centre", "flow") if name in evaluation.baselines]
    implicit = [of_run(folder, evaluation.batch, world) for folder in evaluation.implicit]
    with world.agreed():
        if evaluation.tracking.mlflow and world.first:  # which tags the versions
            for method, folder in zip(implicit, evaluation.implicit, strict=True):
                method.model = version_of(folder, method.objective, evaluation.tracking.uri)
        found += _random(evaluation, world)
        if evaluation.unlc is not None:
            found.append(MotionMasks(evaluation.unlc, evaluation.side))
        found += [ExportedNetwork(path, world.device) for path in evaluation.networks]
        found += implicit
        rows = [method.row for method in found if method.uri != "random"]
        twice = sorted({row for row in rows if rows.count(row) > 1})
        if twice:
            raise ValueError(f"two of networks and implicit are called {', '.join(twice)}; rename or leave one out")
    return found


def _random(evaluation: Segmentation, world: World) -> list[ImplicitForeground]:
    """One a seed for each architecture that `implicit` names."""
    folders = evaluation.implicit if evaluation.random else ()
    drawn = [
        with_random_weights(folder, seed, evaluation.batch, world) for folder in folders for seed in evaluation.seeds
    ]
    known: dict[str, ImplicitForeground] = {}
    for method in drawn:
        known.setdefault(method.identity, method)
    return list(known.values())
