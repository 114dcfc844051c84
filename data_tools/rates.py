"""Timestamps -> a constant frame rate: which rate a film gets, and which slots of it each frame fills."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

MAX_GAP = 2.0  # seconds; a longer step between timestamps is damage or a pause: the film goes on without it
MAX_RATE = 240  # frames per second; above it a rate is a time base in disguise
MIN_RATE = 1
DEFAULT_RATE = Fraction(25)  # of a stream that has neither timestamps nor a stated rate


class Rate(NamedTuple):
    """How a film's frames lie in time."""

    fps: Fraction  # at which it is read
    variable: bool = False  # its own rate varies
    steady: bool = True  # each frame follows the one before at this rate: nothing to repeat, to leave out or to bridge


def constant_rate(times: Sequence[float], stated: Fraction | None) -> Rate:
    """The rate at which a film is read.

    Args:
        times: presentation times in seconds, in any order.
        stated: the rate in the file's header; trusted where the times agree within 2 %, or where there are none.
    """
    ordered = sorted(times)
    steps = [b - a for a, b in pairwise(ordered) if 0 < b - a <= MAX_GAP]
    if not steps:
        usable = stated is not None and MIN_RATE <= stated <= MAX_RATE
        return Rate(Fraction(stated).limit_denominator(1001) if usable and stated else DEFAULT_RATE)
    middle = statistics.median(steps)
    regular = [s for s in steps if abs(s - middle) <= 0.25 * middle]
    variable = len(steps) - len(regular) > 0.1 * len(steps)
    counted = steps if variable else regular  # a few long steps are lost frames, no lower rate
    rate = len(counted) / sum(counted)
    if stated is not None and abs(float(stated) - rate) < 0.02 * rate:
        rate = float(stated)
    steady = not variable and all(abs(b - a - middle) <= 0.5 * middle for a, b in pairwise(ordered))
    return Rate(Fraction(min(max(rate, MIN_RATE), MAX_RATE)).limit_denominator(1001), variable, steady)


class BestTimes:
    """Which of a frame's two timestamps to believe, as FFmpeg's best effort: some containers hand out presentation times
    in decoding order."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}
        self._faults = {"pts": 0, "dts": 0}

    def choose(self, pts: int | None, dts: int | None) -> int | None:
        """The more trustworthy of both; None where there is none."""
        for name, value in (("dts", dts), ("pts", pts)):
            if value is not None:
                self._faults[name] += name in self._last and value <= self._last[name]
                self._last[name] = value
        if pts is not None and (self._faults["pts"] <= self._faults["dts"] or dts is None):
            return pts
        return dts


class Clock:
    """Deals frames to the slots of a constant rate by their timestamps, and bridges absurd steps."""

    def __init__(self, rate: Fraction) -> None:
        self._rate = float(rate)
        self._offset: float | None = None  # film time - timestamp
        self._last = 0.0  # film time of the frame before
        self._slot = -1  # slot of the frame before
        self.gaps = 0  # steps that were bridged

    def advance(self, time: float | None) -> tuple[int, bool]:
        """A frame comes at `time` (seconds; None where the stream has no times).

        Returns:
            How many slots the frame before fills (0: this one takes its place), and whether a step was bridged,
            so that this frame does not follow the one before.
        """
        step = 1 / self._rate
        if self._slot < 0:
            self._offset = -time if time is not None else None
            self._slot = 0
            return 0, False
        now = self._last + step if time is None or self._offset is None else time + self._offset
        bridged = False
        if time is not None and (self._offset is None or not -step < now - self._last <= max(MAX_GAP, 2 * step)):
            bridged = self._offset is not None
            self.gaps += bridged
            now = self._last + step
            self._offset = now - time
        slot = max(round(now * self._rate), self._slot)
        filled, self._slot, self._last = slot - self._slot, slot, max(now, self._last)
        return filled, bridged
