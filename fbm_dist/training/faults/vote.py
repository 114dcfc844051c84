"""StopVote: one small all-reduce a step, by which the ranks agree to stop and learn how far the others' checkpoints are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist

from fbm_dist.training.distributed import World
from fbm_dist.training.faults.stop import StopRequest


class StopVote:
    """`cast()` once per step tells whether the run ends here, the same on every rank.

    The same all-reduce carries what else the ranks must agree on (checkpoints/folder.py). On a GPU the ballot of a step is read one
    step later, so that no host waits for the device because of it.
    """

    def __init__(self, world: World, request: StopRequest) -> None:
        self.world, self.request = world, request
        self._pending: torch.Tensor | None = None

    def cast(self, signals: Sequence[float] = ()) -> tuple[bool, list[float]]:
        """(some rank was asked to stop, the maximum over ranks of each of `signals`)."""
        own = [float(self.request.asked), *signals]
        if self.world.size > 1:
            ballot = torch.tensor(own, dtype=torch.float64, device=self.world.device)
            dist.all_reduce(ballot, op=dist.ReduceOp.MAX)
            if self.world.device.type == "cuda":
                before, self._pending = self._pending, ballot
                if before is None:
                    return False, []
                ballot = before
            own = ballot.tolist()
        return bool(own[0]), own[1:]
