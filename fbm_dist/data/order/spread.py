"""A fixed sample of a data set for looks during training: the same clips in the same batches for any number of ranks. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from fbm_dist.data.order.permutation import Permutation
from fbm_dist.data.order.plan import Pass, Place

KEY = 0x5EED  # of the one shuffle: it must be the same in every run


@dataclass(frozen=True)
class Spread(Pass):
    """One pass over the first `limit` clips of a fixed shuffle, in batches of nearly equal size; batch m goes to rank m % world_size.

    The index stands in the order of the films, often sorted by class: its first clips are of few films, and its neighbours of
    one. The shuffle makes any number of clips a fair sample, and gives losses that compare the clips of a batch others to
    compare with, as in training. Nearly equal: a last batch of a single clip would have nothing to compare.
    """

    limit: int | None = None

    @property
    def size(self) -> int:
        """Clips of all ranks together."""
        return min(self.limit or self.num_clips, self.num_clips)

    @property
    def num_batches(self) -> int:
        """Of this rank; ranks may differ by one, and have none."""
        return len(range(self.rank, self._total, self.world_size))

    @property
    def _total(self) -> int:
        return -(-self.size // self.batch)

    def clip(self, position: int) -> int:
        """Which of the kept clips stands at a position of the shuffle."""
        return Permutation(self.num_clips, KEY)(position)

    def place(self, batch: int, slot: int) -> Place:
        """Slot `slot` of this rank's batch number `batch`."""
        number = batch * self.world_size + self.rank
        if number >= self._total:  # readers run ahead of the end
            return Place(0, self.clip(0), True)
        start, stop = number * self.size // self._total, (number + 1) * self.size // self._total
        past = start + slot >= stop
        position = start if past else start + slot
        return Place(position, self.clip(position), past)
