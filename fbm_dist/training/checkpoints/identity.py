"""What a checkpoint says about the run that it belongs to, and which changes a run may go on with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fbm_dist.schema import Run
from fbm_dist.training.distributed import World
from fbm_dist.training.optimization.optimizers import settings


def identity(run: Run, world: World, players: Sequence[str]) -> dict[str, Any]:
    """For the manifest: what `refuse_changes` and `changes` compare."""
    training = run.training
    return {
        "objective": run.objective.model_dump(mode="json"),
        "seed": run.run.seed,
        "global_batch": training.global_batch,
        "optimizer": _kinds(run, players),
        "engine": engine_name(run),
        "micro_batch": training.micro_batch,
        "world_size": world.size,
    }


def engine_name(run: Run) -> str:
    """`torch` or `ZeRO-1`."""
    return f"ZeRO-{run.training.zero_stage}" if run.training.engine == "deepspeed" else "torch"


def refuse_changes(manifest: dict[str, Any], run: Run, players: Sequence[str]) -> None:
    """A run goes on only as what it was: the same objective, order of data, global batch and kind of optimizer.

    Raises:
        ValueError: naming what differs between the checkpoint and this run.
    """
    then, now = manifest["objective"], run.objective.model_dump(mode="json")
    if then["family"] != now["family"]:
        raise ValueError(_refusal(run, "objective.family", then["family"], now["family"]))
    for key, old, new in (
        *differences(then, now, "objective"),
        *differences(manifest["optimizer"], _kinds(run, players), ""),
        *differences(manifest["seed"], run.run.seed, "run.seed"),
        *differences(manifest["global_batch"], run.training.global_batch, "training.global_batch"),
    ):
        raise ValueError(_refusal(run, key, old, new))


def changes(manifest: dict[str, Any], run: Run, world: World) -> list[str]:
    """What is different now and may be: the run goes on with it, the data order stays exact."""
    found = []
    for name, old, new in (
        ("processes", manifest["world_size"], world.size),
        ("engine", manifest["engine"], engine_name(run)),
        ("micro_batch", manifest["micro_batch"], run.training.micro_batch),
    ):
        if old != new:
            found.append(f"{name} {old} -> {new}")
    return found


def differences(then: Any, now: Any, path: str) -> list[tuple[str, Any, Any]]:
    """(dotted key, old, new) of every leaf that differs between two trees of plain values."""
    if isinstance(then, dict) and isinstance(now, dict):
        keys = sorted({*then, *now})
        return [d for k in keys for d in differences(then.get(k), now.get(k), f"{path}.{k}" if path else k)]
    return [] if then == now else [(path, then, now)]


def _kinds(run: Run, players: Sequence[str]) -> dict[str, str]:
    """Key -> kind of every player's optimizer."""
    alone = len(players) == 1
    return {
        "optimizer.kind" if alone else f"players.{player}.optimizer.kind": settings(run, player).optimizer.kind
        for player in players
    }


def _refusal(run: Run, key: str, old: Any, new: Any) -> str:
    return f"{run.run.folder}: {key} is {new!r}, but the checkpoint there has {old!r}; set it back, or give another run.folder"
