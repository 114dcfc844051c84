"""Reading clips to look at while training: a fixed sample shared among the ranks, and random numbers that training never sees."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from fbm_dist.clip import Clip
from fbm_dist.schema import Data, Run
from fbm_dist.training.distributed import World


def idle() -> None:
    """Nobody watches."""


def read_spread(data: Data, limit: int | None, batch: int, world: World) -> Iterator[Clip]:
    """This rank's share of one pass over the first `limit` clips (None: all) of the data set in its fixed shuffle.

    Which clips come together does not depend on the number of ranks (`fbm_dist.data.order.spread`). No augmentation (`ClipSpec.plain`);
    a clip that cannot be decoded is left out, logged by key and counted.

    Raises:
        ValueError: as `fbm_dist.data.loader.read_once`.
    """
    from fbm_dist.data.loader import read_pass  # DALI: only runs that look at something load it here
    from fbm_dist.data.opened import OpenedData
    from fbm_dist.data.order.spread import Spread

    plain = data.model_copy(update={"clip": data.clip.plain})
    opened = OpenedData(plain, world.device, batch=batch, ranks=world.local_size)
    yield from read_pass(opened, Spread(len(opened), batch, world.rank, world.size, limit))


@contextmanager
def looking_on(run: Run, world: World) -> Iterator[None]:
    """No gradients; random numbers that are the same at every look and leave training's as they were."""
    devices = [world.device] if world.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.no_grad():
        torch.manual_seed(run.run.seed)
        yield


def precision(run: Run, world: World) -> AbstractContextManager[object]:
    """The run's own: autocast to bf16, or nothing. One forward each: autocast keeps the weights that it cast."""
    if run.training.precision == "bf16":
        return torch.autocast(world.device.type, dtype=torch.bfloat16)
    return nullcontext()
