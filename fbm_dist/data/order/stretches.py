"""A pass over some stretches of a data set, each in batches of its own, for work that is kept a stretch at a time. Imports no torch."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, chain

from fbm_dist.data.order.plan import Pass, Place


@dataclass(frozen=True)
class Stretches(Pass):
    """One pass over the clips [start, stop) of each stretch, in the order of the index, all of them by this process.

    A batch never holds clips of two stretches, so what a clip's batch is does not depend on which other stretches are read.

    Attributes:
        stretches: non-empty, ascending, within the clips that take part.
    """

    stretches: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        bounds = list(chain.from_iterable(self.stretches))
        fit = all(start < stop <= self.num_clips for start, stop in self.stretches)
        if not fit or bounds != sorted(bounds):
            raise ValueError(f"stretches must be ascending and within 0 to {self.num_clips}")

    @cached_property
    def _first(self) -> list[int]:
        """Number of each stretch's first batch, and of the batch after the last one."""
        return [0, *accumulate(-(-(stop - start) // self.batch) for start, stop in self.stretches)]

    @property
    def num_batches(self) -> int:
        """Of all stretches; the last one of each may be smaller."""
        return self._first[-1]

    def place(self, batch: int, slot: int) -> Place:
        """Slot `slot` of batch number `batch`."""
        if batch >= self.num_batches:  # readers run ahead of the end
            return Place(self.num_clips, self.stretches[0][0] if self.stretches else 0, True)
        number = bisect_right(self._first, batch) - 1
        start, stop = self.stretches[number]
        position = start + (batch - self._first[number]) * self.batch + slot
        past = position >= stop
        return Place(stop - 1 if past else position, stop - 1 if past else position, past)

    @property
    def size(self) -> int:
        """Clips of all stretches together."""
        return sum(stop - start for start, stop in self.stretches)

    def positions(self, first: int) -> Iterator[int]:
        """Of this process, from one on."""
        return (p for start, stop in self.stretches for p in range(max(start, first), stop))
