"""What a checkpoint holds beside its manifest: engines, every rank's buffers and random generators, and the full weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_model
from torch import nn

from fbm_dist.training.distributed import World, random_state, restore_random_state
from fbm_dist.training.engines import Engine

WEIGHTS = "objective.safetensors"  # full fp32 weights, whatever engine, stage and world size wrote them


def writers(
    engines: Mapping[str, Engine], working: nn.Module, objective: nn.Module, world: World
) -> list[Callable[[Path], None]]:
    """The parts of a checkpoint in the order in which they are written; `objective` holds the gathered weights."""

    def rank_part(folder: Path) -> None:
        # BatchNorm's running statistics differ from rank to rank, and DeepSpeed would keep rank 0's alone.
        buffers = {name: buffer.cpu() for name, buffer in working.named_buffers()}
        torch.save({"buffers": buffers, "random": random_state()}, folder / f"rank-{world.rank:05d}.pt")

    def weights_part(folder: Path) -> None:
        if world.first:
            save_model(objective, str(folder / WEIGHTS))

    def engine_part(player: str, engine: Engine) -> Callable[[Path], None]:
        return lambda folder: engine.save(folder / f"engine-{player}")

    return [rank_part, weights_part, *(engine_part(player, engine) for player, engine in engines.items())]


def restore(folder: Path, engines: Mapping[str, Engine], working: nn.Module, world: World) -> None:
    """Load engines, then this rank's buffers over theirs, then its random generators."""
    for player, engine in engines.items():
        engine.load(folder / f"engine-{player}")
    state = torch.load(folder / f"rank-{world.rank:05d}.pt", map_location="cpu", weights_only=True)
    with torch.no_grad():
        for name, buffer in working.named_buffers():
            buffer.copy_(state["buffers"][name])
    restore_random_state(state["random"])
