"""Which clip comes at which position, for whom, and with which random numbers: pure functions, nothing stored. Imports no torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from fbm_dist.schema import ClipSpec

VERSION = 1  # of the order and the random numbers: a change here changes every digest
ROUNDS = 6  # of the Feistel network; four make it indistinguishable from a random permutation if the rounds are
MASK64 = (1 << 64) - 1


@dataclass(frozen=True)
class Permutation:
    """A pseudo-random bijection of 0 .. size-1, computed for one number at a time: no array of that length anywhere.

    A balanced Feistel network permutes the smallest 4^n >= size; numbers that land outside are sent through again
    ("cycle walking", Black and Rogaway 2002), fewer than four times on average.
    """

    size: int
    key: int  # 64 bits

    def __call__(self, number: int) -> int:
        """Where `number` goes; both are in [0, size)."""
        assert 0 <= number < self.size, f"{number} is not in [0, {self.size})"
        if self.size == 1:
            return 0
        half = ((self.size - 1).bit_length() + 1) // 2
        mask = (1 << half) - 1
        while True:
            left, right = number >> half, number & mask
            for turn in range(ROUNDS):
                left, right = right, left ^ (_mix(right ^ self.key ^ turn << 58) & mask)
            number = left << half | right
            if number < self.size:
                return number


def _mix(value: int) -> int:
    """The finalizer of SplitMix64 (Steele, Lea and Flood 2014), twice: every input bit moves every output bit."""
    for _ in range(2):
        value = (value + 0x9E3779B97F4A7C15) & MASK64
        value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & MASK64
        value = ((value ^ value >> 27) * 0x94D049BB133111EB) & MASK64
        value ^= value >> 31
    return value


def _key(*words: int | str) -> int:
    """64 bits from any integers and names; the same on every machine."""
    return int.from_bytes(hashlib.blake2b(repr(words).encode(), digest_size=8).digest(), "little")


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
    """The endless stream of training: a permutation of the clips, another one for each epoch.

    Positions p = 0, 1, 2, ... count over all epochs: epoch p // N, then the permutation of p % N. Step s takes the
    positions [s*G, (s+1)*G), so a global batch may straddle two epochs: each clip comes exactly once an epoch, nothing
    is dropped and no rank ever waits for another. Within a step, micro-batch m of rank r takes s*G + m*B*W + j*W + r
    for j = 0 .. B-1: which clips make up a step does not depend on the number of ranks.
    """

    num_clips: int
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

    def place(self, batch: int, slot: int) -> Place:
        """Slot `slot` of this rank's micro-batch number `batch`, counted from the start of this stream."""
        position = self.consumed + (batch * self.micro_batch + slot) * self.world_size + self.rank
        return Place(position, self.clip(position))

    def clip(self, position: int) -> int:
        """Which clip stands at a position of the global stream."""
        epoch, within = divmod(position, self.num_clips)
        return Permutation(self.num_clips, _key("order", self.seed, epoch))(within)

    def substitute(self, position: int, attempt: int) -> int:
        """The clip that takes the place of one that cannot be decoded: attempt 1, 2, ... until one can."""
        return _key("substitute", self.seed, position, attempt) % self.num_clips

    def draw(self, position: int) -> Draw:
        """The random numbers of a position."""
        return Draw.at(self.seed, *divmod(position, self.num_clips))


@dataclass(frozen=True)
class Pass:
    """One pass in the order of the index, dealt round-robin to ranks: for evaluation. No random numbers."""

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

    def substitute(self, position: int, attempt: int) -> int:
        """A clip to fill the place of one that cannot be decoded, which is left out."""
        return _key("substitute", position, attempt) % self.num_clips

    def draw(self, position: int) -> Draw:
        """The middle of everything, and neither reversed nor mirrored."""
        return Draw(0.5, 1.0, 1.0)


@dataclass(frozen=True)
class Draw:
    """The random numbers of one position, each in [0, 1): the same whatever decoder, backend or number of ranks."""

    window: float
    reverse: float
    mirror: float

    @staticmethod
    def at(seed: int, epoch: int, position: int) -> Draw:
        """From a counter-based generator (Philox): key = seed and epoch, counter = position within the epoch."""
        generator = np.random.Philox(key=np.array([seed & MASK64, epoch], np.uint64), counter=[0, position, 0, 0])
        return Draw(*np.random.Generator(generator).random(3).tolist())


@dataclass(frozen=True)
class Moment:
    """What is cut out of one stored clip."""

    frames: tuple[int, ...]  # indices within the stored clip, ascending
    reverse: bool
    mirror: bool

    @property
    def shown(self) -> tuple[int, ...]:
        """The frames in the order in which they are shown."""
        return self.frames[::-1] if self.reverse else self.frames


def moment(spec: ClipSpec, num_frames: int, draw: Draw, first: int | None = None) -> Moment:
    """Which frames of a stored clip of `num_frames` (>= spec.span) are taken, and what is done to them.

    Args:
        first: the frame to start with, where it is chosen already (`spec.frames_per_shot`).
    """
    free = num_frames - spec.span
    assert free >= 0, f"{num_frames} stored frames do not hold a clip of {spec.span}"
    start = int(draw.window * (free + 1)) if spec.window == "random" else free // 2
    if first is not None:
        assert 0 <= first <= free, f"frame {first} of {num_frames} does not start a clip of {spec.span}"
        start = first
    frames = tuple(range(start, start + spec.span, spec.stride))
    return Moment(frames, draw.reverse < spec.reverse, draw.mirror < spec.mirror)
