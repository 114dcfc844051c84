"""A polite stop: SIGTERM, SIGUSR1, SIGHUP or Ctrl-C on any rank, or a lost launcher -> all ranks finish the same step, save, and leave.

The `deepspeed` runner does not pass SIGTERM on; send it to the ranks (Slurm: `--signal=USR1@180`), to `launch`, or to the process group.
Imports no torch: a door listens before it loads anything heavy.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any

from fbm_dist.training.faults.lifeline import GRACE, Lifeline

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT)


class StopRequest:
    """Context: remembers that this process was asked to stop, from the start of a program on: a start takes longer than a step."""

    def __init__(self) -> None:
        self.asked = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        # Elsewhere (a sweep's trial) Python allows no handlers.
        if threading.current_thread() is threading.main_thread():
            heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]  # nohup
            self._previous = {number: signal.signal(number, self._heard) for number in heard}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def ask(self) -> None:
        """As if a signal had come."""
        self.asked = True

    def _heard(self, number: int, frame: FrameType | None) -> None:
        self.ask()
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)
            with suppress(OSError):
                os.write(2, b"stopping after this step; once more ends at once, without saving\n")


@contextmanager
def listening(hang_timeout: float) -> Iterator[StopRequest]:
    """Signals and the loss of the launcher both ask for a stop.

    Args:
        hang_timeout: seconds that a step may take: a rank without a launcher is given as much to come to its end.
    """
    request = StopRequest()

    def lost(why: str) -> None:
        with suppress(OSError):
            print(f"{why}: this rank stops after its step and saves", file=sys.stderr, flush=True)
        request.ask()

    with request, Lifeline(lost, max(GRACE, hang_timeout)):
        yield request
