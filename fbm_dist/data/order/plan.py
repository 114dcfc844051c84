"""Which clip comes at which position, for whom, and with which random numbers: pure functions, nothing stored. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from fbm_dist.data.order.arrangement import Arrangement
from fbm_dist.data.order.draw import Draw
from fbm_dist.data.order.permutation import word

VERSION = 3  # of the order, the random numbers and the pixels: a change here changes every digest
NEAR = 50  # attempts to find another film among the clips at hand


@dataclass(frozen=True)
class Place:
    """One entry of the plan.

    Attributes:
        position: in the endless global stream.
        clip: which of the kept clips stands there.
        padding: True where a last batch is filled up; such a clip is read and thrown away.
    """

    position: int
    clip: int
    padding: bool = False


@dataclass(frozen=True)
class Order:
    """The endless stream of training, dealt to ranks.

    Positions p = 0, 1, 2, ... count over all epochs; `arrangement` says which clip stands at each. Step s takes the
    positions [s*G, (s+1)*G), so a global batch may straddle two epochs: each clip comes exactly once an epoch, nothing
    is dropped and no rank ever waits for another. Within a step, micro-batch m of rank r takes s*G + m*B*W + j*W + r
    for j = 0 .. B-1: which clips make up a step does not depend on the number of ranks.
    """

    arrangement: Arrangement
    seed: int
    global_batch: int
    micro_batch: int
    rank: int = 0
    world_size: int = 1
    consumed: int = 0  # positions that were used before this stream starts

    def __post_init__(self) -> None:
        share = self.micro_batch * self.world_size
        if min(self.global_batch, self.micro_batch, self.world_size) < 1 or not 0 <= self.rank < self.world_size:
            raise ValueError(
                f"global batch {self.global_batch}, micro-batch {self.micro_batch} and rank {self.rank} of "
                f"{self.world_size} must be positive, and the rank smaller than the number of processes"
            )
        if self.global_batch % share:
            raise ValueError(
                f"training.global_batch={self.global_batch} is not a multiple of training.micro_batch="
                f"{self.micro_batch} x {self.world_size} processes = {share}; set it to "
                f"{-(-self.global_batch // share) * share}, or change the micro-batch"
            )
        if self.consumed < 0 or self.consumed % self.global_batch:
            raise ValueError(f"consumed={self.consumed} is not a whole number of global batches of {self.global_batch}")
        if self.num_clips < 1:
            raise ValueError("an order needs at least one clip")

    @property
    def num_clips(self) -> int:
        """Of an epoch."""
        return self.arrangement.size

    def place(self, batch: int, slot: int) -> Place:
        """Slot `slot` of this rank's micro-batch number `batch`, counted from the start of this stream."""
        position = self.consumed + (batch * self.micro_batch + slot) * self.world_size + self.rank
        return Place(position, self.clip(position))

    def positions(self, first: int) -> Iterator[int]:
        """Of the global stream from one on: all ranks', without end."""
        return count(first)

    def clip(self, position: int) -> int:
        """Which clip stands at a position of the global stream."""
        return self.arrangement.clip(position)

    def substitute(self, position: int, attempt: int) -> int:
        """The clip that takes the place of one that cannot be decoded: attempt 1, 2, ... until one can."""
        return self.arrangement.near(position, word("substitute", self.seed, position, attempt))

    def other(self, position: int, attempt: int) -> int:
        """A clip to show beside the one of a position: attempt 0, 1, ... until one is of another film and can be decoded.

        Of those at hand first, which may be of one film, then of all.
        """
        number = word("other", self.seed, position, attempt)
        return self.arrangement.near(position, number) if attempt < NEAR else number % self.num_clips

    def draw(self, position: int) -> Draw:
        """The random numbers of a position."""
        return Draw.at(self.seed, *divmod(position, self.num_clips))


@dataclass(frozen=True)
class Pass:
    """One pass in the order of the index, dealt round-robin to ranks: for evaluation. No random numbers but those of masks made worse."""

    num_clips: int
    batch: int
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if self.batch < 1 or not 0 <= self.rank < self.world_size:
            raise ValueError(f"batch {self.batch} must be positive and rank {self.rank} below {self.world_size}")

    @property
    def num_batches(self) -> int:
        """Of this rank; the last one may be smaller."""
        mine = len(range(self.rank, self.num_clips, self.world_size))
        return -(-mine // self.batch)

    def place(self, batch: int, slot: int) -> Place:
        """Slot `slot` of this rank's batch number `batch`."""
        position = (batch * self.batch + slot) * self.world_size + self.rank
        past = position >= self.num_clips
        return Place(position, self.rank if past and self.rank < self.num_clips else position % self.num_clips, past)

    @property
    def size(self) -> int:
        """Clips of all ranks together."""
        return self.num_clips

    def positions(self, first: int) -> Iterator[int]:
        """Of the pass from one on, all ranks'."""
        return iter(range(first, self.size))

    def clip(self, position: int) -> int:
        """Which clip stands at a position."""
        return position

    def substitute(self, position: int, attempt: int) -> int:
        """A clip to fill the place of one that cannot be decoded, which is left out."""
        return word("substitute", position, attempt) % self.num_clips

    def other(self, position: int, attempt: int) -> int:
        """A clip to show beside it."""
        return word("other", position, attempt) % self.num_clips

    def draw(self, position: int) -> Draw:
        """The middle of everything, and neither reversed nor mirrored; masks are made worse in every way, by the position alone."""
        return Draw(0.5, 1.0, 1.0, degrade=(word("degrade", position) >> 11) * 2.0**-53)
