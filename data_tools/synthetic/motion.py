"""How a thing moves through a shot: its class of motion, and start, size, speed and drift drawn within the class.

Motion is as the picture shows it: a camera that moves takes the background along, not the thing (it is followed).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from data_tools.synthetic.config import COVERAGE, Motion

DIRECTIONS = {"right": (1.0, 0.0), "left": (-1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0)}
OVERHANG = 0.15  # share of its length by which a thing may leave the picture
Curve = Float[np.ndarray, "t"]


@dataclass(frozen=True)
class Shape:
    """What the motion must know of a thing at rest, in its own units (about 1 from centre to rim)."""

    area: float
    half_width: float
    half_height: float
    radius: float  # of the circle about its centre that holds it
    upright: bool  # it has a head and feet, and stays on them unless it turns


@dataclass(frozen=True)
class Trajectory:
    """A thing's pose in each frame; y points down and angles are clockwise, as in pictures."""

    x: Curve  # of its centre, pixels
    y: Curve
    scale: Curve  # pixels a unit
    angle: Curve  # radians
    bend: Curve  # units by which a wave runs through its body
    swing: Curve  # radians by which limbs swing; a thing without limbs has no use for it
    phase: Curve  # radians, of the wave and of the limbs


def trajectory(
    motion: Motion,
    shape: Shape,
    num_frames: int,
    size: tuple[int, int],
    rng: np.random.Generator,
    coverage: tuple[float, float] = COVERAGE,
) -> Trajectory:
    """Draw a motion of the class for a picture of `size` (height, width).

    Args:
        coverage: range of the thing's share of the picture; where it would not fit, the thing is made smaller.
    """
    time = np.linspace(0.0, 1.0, num_frames)
    scale = _scale(motion, shape, time, size, rng, coverage)
    if motion in DIRECTIONS:
        x, y = _travel(DIRECTIONS[motion], shape, scale[0], time, size, rng)
    else:
        x, y = _stay(motion, shape, scale.max(), time, size, rng)
    rest = rng.uniform(-0.12, 0.12) if shape.upright else rng.uniform(0, 2 * np.pi)
    if motion == "turn":
        turns = rng.choice((-1.0, 1.0)) * np.deg2rad(rng.uniform(3.0, 6.0)) * num_frames
        angle = rest + turns * _eased(time, rng)
    else:
        angle = rest + 0.05 * np.sin(2 * np.pi * time * num_frames / rng.uniform(25, 50) + rng.uniform(0, 2 * np.pi))
    waving = motion == "wave"
    period = rng.uniform(11, 18) if waving else rng.uniform(18, 28)  # frames
    phase = rng.uniform(0, 2 * np.pi) + 2 * np.pi * np.arange(num_frames) / period
    bend = rng.uniform(0.15, 0.25) if waving else 0.0
    # limbs are never quite still, or a swinging limb would name the motion and not only a walking figure
    swing = rng.uniform(0.7, 1.0) if waving else rng.uniform(0.15, 0.3)
    return Trajectory(x, y, scale, angle, np.full_like(time, bend), np.full_like(time, swing), phase)


def _scale(
    motion: Motion,
    shape: Shape,
    time: Curve,
    size: tuple[int, int],
    rng: np.random.Generator,
    coverage: tuple[float, float],
) -> Curve:
    height, width = size
    ratio = min(rng.uniform(2.2, 2.8), float(np.exp(0.025 * len(time))))  # end to start; a short shot shows less of it
    scaling = motion in ("grow", "shrink")
    share = rng.uniform(*coverage)
    if scaling:  # large at its largest, or nothing is left of it at its smallest
        share = 0.8 * share + coverage[1]
    # along its way a thing must leave room to travel; elsewhere it must fit
    along, across = (0.45, 0.8) if motion in DIRECTIONS else (0.85, 0.85)
    room_x, room_y = (across, along) if motion in ("up", "down") else (along, across)
    half_width, half_height = (shape.radius,) * 2 if motion == "turn" else (shape.half_width, shape.half_height)
    largest = min(
        np.sqrt(share * height * width / shape.area),
        room_x * width / (2 * half_width),
        room_y * height / (2 * half_height),
    )
    if not scaling:
        return np.full_like(time, largest)
    curve = largest * ratio ** (time - 1)  # the same factor each frame: it comes nearer at an even pace
    return curve if motion == "grow" else curve[::-1].copy()


def _travel(
    direction: tuple[float, float],
    shape: Shape,
    scale: float,
    time: Curve,
    size: tuple[int, int],
    rng: np.random.Generator,
) -> tuple[Curve, Curve]:
    """Cross 70 to 100 % of the way there is, at up to 2 % of the picture a frame, with some drift to the side."""
    progress = _eased(time, rng) - 0.5
    curves = []
    for step, length, half in zip(direction, size[::-1], (shape.half_width, shape.half_height), strict=True):
        low, high = _span(length, half * scale)
        if step:
            way = min((high - low) * rng.uniform(0.7, 1.0), 0.02 * length * len(time))
        else:
            way = (high - low) * rng.uniform(-0.2, 0.2)
        slack = (high - low - abs(way)) / 2
        curves.append((low + high) / 2 + rng.uniform(-slack, slack) + (step or 1.0) * way * progress)
    return curves[0], curves[1]


def _stay(
    motion: Motion, shape: Shape, scale: float, time: Curve, size: tuple[int, int], rng: np.random.Generator
) -> tuple[Curve, Curve]:
    """Keep a place, but for a drift of up to 3 % of the picture."""
    halves = (shape.radius,) * 2 if motion == "turn" else (shape.half_width, shape.half_height)
    progress = _eased(time, rng) - 0.5
    x, y = (
        rng.uniform(*_span(length, half * scale)) + rng.uniform(-0.03, 0.03) * length * progress
        for length, half in zip(size[::-1], halves, strict=True)
    )
    return x, y


def _span(length: int, half: float) -> tuple[float, float]:
    """Lowest and highest place of a centre in a picture side of `length` pixels."""
    margin = min(half * (1 - 2 * OVERHANG), length / 2)
    return margin, length - margin


def _eased(time: Curve, rng: np.random.Generator) -> Curve:
    """From 0 to 1 at a speed that varies by up to 30 % and never turns back."""
    waves = rng.uniform(1.0, 2.5)
    depth, start = rng.uniform(0.0, 0.3), rng.uniform(0, 2 * np.pi)
    raw = time + depth / (2 * np.pi * waves) * (np.sin(2 * np.pi * waves * time + start) - np.sin(start))
    return raw / raw[-1]
