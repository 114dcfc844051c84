"""The random numbers of a position, and what they choose of a stored clip: pure functions. Imports no torch."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from fbm_dist.schema import ClipSpec

MASK64 = (1 << 64) - 1


@dataclass(frozen=True)
class Draw:
    """The random numbers of one position, each in [0, 1): the same whatever decoder, backend or number of ranks.

    Attributes:
        window: where the frames start.
        reverse, mirror: each against its probability.
        y, x: where the square is.
        scale: of the square.
        negative: which frame of another film.
        order: the seed of what needs more numbers (which frames of `within`).
        degrade: how the clip's masks are made worse.
    """

    window: float
    reverse: float
    mirror: float
    y: float = 0.5
    x: float = 0.5
    scale: float = 0.5
    negative: float = 0.5
    order: float = 0.0
    degrade: float = 0.5

    @staticmethod
    def at(seed: int, epoch: int, position: int) -> Draw:
        """A hash (BLAKE2b) of seed, epoch and position within the epoch: 53 bits for each number."""
        words = (seed & MASK64, epoch, position)
        return Draw(*_numbers(struct.pack("<3Q", *words)), *_numbers(struct.pack("<4Q", *words, 1))[:1])


def _numbers(text: bytes) -> list[float]:
    """Eight numbers in [0, 1)."""
    return [value * 2.0**-53 for value in (word >> 11 for word in struct.unpack("<8Q", hashlib.blake2b(text).digest()))]


@dataclass(frozen=True)
class Moment:
    """What is cut out of one stored clip."""

    frames: tuple[int, ...]  # indices within the stored clip, ascending, no two alike
    turn: tuple[int, ...]  # which of them are shown, in this order
    mirror: bool

    @property
    def shown(self) -> tuple[int, ...]:
        """The frames in the order in which they are shown."""
        return tuple([self.frames[i] for i in self.turn])


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
    offsets: Sequence[int] = spec.offsets or range(0, spec.span, spec.stride)
    turn: Sequence[int] = range(spec.frames)
    if spec.within is not None:
        drawn = _sample(spec.frames, spec.within, draw.order)
        offsets = sorted(drawn)
        turn = [offsets.index(offset) for offset in drawn]
    if draw.reverse < spec.reverse:
        turn = turn[::-1]
    return Moment(tuple([start + offset for offset in offsets]), tuple(turn), draw.mirror < spec.mirror)


def negative(num_frames: int, draw: Draw, mirror: bool, *, centre: bool) -> Moment:
    """The frame of another film's clip that is shown beside a moment."""
    frame = num_frames // 2 if centre else int(draw.negative * num_frames)
    return Moment((frame,), (0,), mirror)


def _sample(count: int, size: int, seed: float) -> list[int]:
    """`count` different numbers below `size` in random order: the first steps of Fisher and Yates' shuffle."""
    numbers, drawn = list(range(size)), [0.0]
    for i in range(count):
        if len(drawn) == 1:
            drawn = _numbers(struct.pack("<dQ", seed, i))
        j = i + int(drawn.pop() * (size - i))
        numbers[i], numbers[j] = numbers[j], numbers[i]
    return numbers[:count]
