"""Which clip stands at which position: of one data set, shuffled as a whole or in blocks, or of several. Imports no torch."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64

from fbm_dist.data.lazy import Lazy
from fbm_dist.data.order.permutation import permutation

CYCLE = 1000  # positions in which every data set of a mixture has exactly its share


@runtime_checkable  # the tests check annotations
class Arrangement(Protocol):
    """A pure function of position and seed; nothing that it keeps is as long as the data set."""

    @property
    def size(self) -> int:
        """Clips, and positions of an epoch."""

    def clip(self, position: int) -> int:
        """Which clip stands at a position, 0, 1, 2, ... without end: a number below `size`."""

    def near(self, position: int, number: int) -> int:
        """The clip that any `number` picks among those that a reader at that position has at hand."""


@dataclass(frozen=True)
class Shuffled:
    """Every clip once an epoch, any clip after any other: epoch p // size, then the permutation of p % size."""

    size: int
    seed: int
    part: int = 0  # of a mixture

    def clip(self, position: int) -> int:
        """See `Arrangement`."""
        epoch, within = divmod(position, self.size)
        return permutation(self.size, "order", self.seed, self.part, epoch)(within)

    def near(self, position: int, number: int) -> int:
        """Any clip."""
        return number % self.size


@dataclass(frozen=True)
class _Epoch:
    """One epoch of `Blocks`: its shards in the order in which they come."""

    shards: Int64[np.ndarray, " shards"]
    ends: Int64[np.ndarray, " shards"]  # clips up to and with each of them
    bounds: Int64[np.ndarray, " blocks_and_one"]  # position of each block's first clip; the last is the size


@dataclass(frozen=True, eq=False)
class Blocks(Lazy):
    """Every clip once an epoch, but a shard is read in one stretch: shards are shuffled, then the clips of `block` of them together.

    For shards that have to be brought from afar: each is needed for the length of one block, and nobody has to hold more than
    two blocks of them. Which clips meet in a batch is less random than with `Shuffled`; another block every epoch.

    Attributes:
        starts: (shards + 1) number of each shard's first clip; the last is the number of clips.
    """

    starts: Int64[np.ndarray, " shards_and_one"]
    block: int
    seed: int
    part: int = 0

    @cached_property
    def _epochs(self) -> dict[int, _Epoch]:
        """Those that were asked for last."""
        return {}

    @property
    def size(self) -> int:
        """See `Arrangement`."""
        return int(self.starts[-1])

    def clip(self, position: int) -> int:
        """See `Arrangement`."""
        number, within = divmod(position, self.size)
        epoch, block = self._find(number, within)
        first, last = int(epoch.bounds[block]), int(epoch.bounds[block + 1])
        chosen = permutation(last - first, "block", self.seed, self.part, number, block)(within - first)
        return self._clip(epoch, first + chosen)

    def near(self, position: int, number: int) -> int:
        """A clip of the same block."""
        epoch, block = self._find(*divmod(position, self.size))
        first, last = int(epoch.bounds[block]), int(epoch.bounds[block + 1])
        return self._clip(epoch, first + number % (last - first))

    def _clip(self, epoch: _Epoch, place: int) -> int:
        """The clip at a place of the shards as they come, unshuffled."""
        at = int(np.searchsorted(epoch.ends, place, "right"))
        before = int(epoch.ends[at - 1]) if at else 0
        return int(self.starts[epoch.shards[at]]) + place - before

    def _find(self, number: int, within: int) -> tuple[_Epoch, int]:
        """An epoch, and the block of a position of it."""
        epoch = self._epochs.get(number)
        if epoch is None:
            epoch = self._epoch(number)
            for old in sorted(self._epochs)[:-1]:  # readers stand in one epoch, or on the edge of the next
                del self._epochs[old]
            self._epochs[number] = epoch
        return epoch, int(np.searchsorted(epoch.bounds, within, "right")) - 1

    def _epoch(self, number: int) -> _Epoch:
        counts = np.diff(self.starts)
        filled = np.flatnonzero(counts)
        order = permutation(len(filled), "shards", self.seed, self.part, number).many(np.arange(len(filled)))
        shards = filled[order]
        ends = np.cumsum(counts[shards])
        blocks = -(-len(ends) // self.block)  # as even as they can be: none is a small remainder
        lasts = np.arange(1, blocks + 1) * len(ends) // blocks - 1
        return _Epoch(shards, ends, np.concatenate([[0], ends[lasts]]).astype(np.int64))


@dataclass(frozen=True)
class Mixture:
    """Several data sets by weight: of every 1,000 positions each has its share exactly, and each goes through its own epochs.

    Position p is slot s of cycle c = p // 1000, where s is a permutation of p % 1000 that differs from cycle to cycle. A data set
    with q slots has those below q, the next one the following; its own position is c * q + its slot.

    Attributes:
        parts: the data sets' own streams; their clips are numbered one data set after the other.
        slots: of each, 1,000 in all (`slots_of`).
    """

    parts: tuple[Arrangement, ...]
    slots: tuple[int, ...]
    seed: int

    @cached_property
    def _first(self) -> list[int]:
        return [0, *accumulate(self.slots)]

    @cached_property
    def _offset(self) -> list[int]:
        return [0, *accumulate(part.size for part in self.parts)]

    @property
    def size(self) -> int:
        """Clips of all of them: an epoch is so many positions, though some clips come more often in it than others."""
        return self._offset[-1]

    def clip(self, position: int) -> int:
        """See `Arrangement`."""
        part, own = self.own(position)
        return self._offset[part] + self.parts[part].clip(own)

    def near(self, position: int, number: int) -> int:
        """A clip of the same data set."""
        part, own = self.own(position)
        return self._offset[part] + self.parts[part].near(own, number)

    def own(self, position: int) -> tuple[int, int]:
        """Which data set a position belongs to, and which position of its own stream that is."""
        cycle, within = divmod(position, CYCLE)
        slot = permutation(CYCLE, "mix", self.seed, cycle)(within)
        part = bisect_right(self._first, slot) - 1
        return part, cycle * self.slots[part] + slot - self._first[part]


def slots_of(weights: Sequence[float]) -> tuple[int, ...]:
    """Of 1,000 slots, how many each weight gets: the nearest whole numbers (largest remainder).

    Raises:
        ValueError: one would get none.
    """
    total = sum(weights)
    exact = [weight / total * CYCLE for weight in weights]
    slots = [int(share) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: (slots[i] - exact[i], i))
    for i in by_remainder[: CYCLE - sum(slots)]:
        slots[i] += 1
    if min(slots) == 0:
        least = min(range(len(weights)), key=lambda i: exact[i])
        raise ValueError(
            f"weight {weights[least]:g} is less than 1/{CYCLE} of the sum of all weights ({total:g}); give that data set "
            "more, or leave it out"
        )
    return tuple(slots)
