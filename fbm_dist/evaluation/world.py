"""The processes of an evaluation: joined with patience, and reading one pass over clips together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from fbm_dist.clip import Clip
from fbm_dist.data.loader import read_pass
from fbm_dist.data.opened import OpenedData
from fbm_dist.data.order.plan import Pass
from fbm_dist.schema import Data, Training
from fbm_dist.training.distributed import World, agreed, start

DAY = 86_400.0  # seconds that ranks wait for rank 0, which clusters and draws, or for one that has more to do


def join(device: Literal["auto", "cpu", "cuda"]) -> World:
    """This process among its peers, alone or under a launcher.

    Raises:
        ValueError: there is no such device.
    """
    return start(Training(steps=1, engine="torch", device=device, hang_timeout=DAY))


def interrupted(what: str, step: int) -> ValueError:
    """What is raised, by every rank, where a signal stopped a training: nothing else shall begin after it."""
    error = agreed(f"{what} was interrupted at step {step}; the same command goes on from there")
    error.interrupted = True  # type: ignore[attr-defined]
    return error


def shared_pass(data: Data, batch: int, world: World) -> Iterator[Clip]:
    """One pass over the clips of `data`, without augmentation, of which this rank reads its share.

    Every rank has to call it; all take the same decoder. The batches may be read inside `world.agreed()`.

    Raises:
        ValueError: on every rank, at the call: what the loader refuses. While reading: too many clips cannot be decoded.
    """
    plain = data.model_copy(update={"clip": data.clip.plain})
    with world.agreed():
        opened = OpenedData(plain, world.device, batch=batch, ranks=world.local_size)
    opened.agree(world.gather)
    return read_pass(opened, Pass(len(opened), batch, world.rank, world.size))
