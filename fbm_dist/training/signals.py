"""A polite stop: SIGTERM or SIGUSR1 on any rank -> all ranks finish the same step, save, and leave.

The `deepspeed` runner does not pass SIGTERM on; send it to the ranks (Slurm: `--signal=USR1@180`), to `launch`, or to the process group.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

import torch
import torch.distributed as dist

from fbm_dist.training.distributed import World

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class StopVote:
    """Context: catches the signals. `cast()` once per step tells whether the run ends here, the same on every rank.

    On a GPU the ballot of a step is read one step later, so that no host waits for the device because of it.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.asked = False
        self._previous: dict[signal.Signals, Any] = {}
        self._pending: torch.Tensor | None = None

    def __enter__(self) -> StopVote:
        if (
            threading.current_thread() is threading.main_thread()
        ):  # elsewhere (a sweep's trial) Python allows no handlers
            self._previous = {number: signal.signal(number, self._ask) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True

    def cast(self) -> bool:
        """True when some rank was asked to stop."""
        if self.world.size == 1:
            return self.asked
        ballot = torch.tensor([float(self.asked)], device=self.world.device)
        dist.all_reduce(ballot, op=dist.ReduceOp.MAX)
        read = ballot
        if self.world.device.type == "cuda":
            read, self._pending = self._pending if self._pending is not None else torch.zeros(1), ballot
        return bool(read.item())
