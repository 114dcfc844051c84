"""Things that move: outlines covered with photographs; the figure has limbs that swing about their joints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from data_tools.synthetic import photographs
from data_tools.synthetic.config import Thing
from data_tools.synthetic.motion import Shape

REACH = 1.5  # a thing is drawn on a square canvas of [-REACH, REACH] units; no limb reaches further
Outline = Float[np.ndarray, "n 2"]


@dataclass(frozen=True)
class Part:
    """A piece that moves as one. Coordinates are the thing's own, at rest; y points down."""

    outline: Outline
    joint: tuple[float, float] = (0.0, 0.0)  # where it turns
    parent: int = -1  # part that carries it; -1: the body
    rest: float = 0.0  # radians by which it is turned while nothing swings
    swing: float = 0.0  # it turns by swing * amplitude * sin(phase + lag)
    lag: float = 0.0
    light: float = 1.0  # limbs behind the body are darker


class Sprite:
    """A thing with its skin on, at a resolution of `resolution` pixels a unit."""

    def __init__(
        self, parts: tuple[Part, ...], skins: list[UInt8[np.ndarray, "s s 3"]], resolution: float, gain: float
    ) -> None:
        self._parts, self.resolution = parts, resolution
        self._skins = [
            np.clip(skin * (_shade(len(skin)) * (gain * part.light))[..., None], 0, 255).astype(np.uint8)
            for skin, part in zip(skins, parts, strict=True)
        ]
        self._rigid = self._draw(0.0, 0.0) if all(part.swing == 0 for part in parts) else None

    def draw(self, amplitude: float, phase: float) -> UInt8[np.ndarray, "s s 4"]:
        """The thing on its canvas: colour times opacity, and opacity, with anti-aliased edges."""
        return self._rigid if self._rigid is not None else self._draw(amplitude, phase)

    def _draw(self, amplitude: float, phase: float) -> UInt8[np.ndarray, "s s 4"]:
        side = len(self._skins[0])
        canvas = np.zeros((side, side, 4), np.float32)
        for part, place, skin in zip(self._parts, _places(self._parts, amplitude, phase), self._skins, strict=True):
            points = self._pixels(part.outline @ place[:, :2].T + place[:, 2])
            low = np.clip(np.floor(points.min(0)).astype(int) - 1, 0, side - 1)
            high = np.clip(np.ceil(points.max(0)).astype(int) + 2, 1, side)
            opacity = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
            cv2.fillPoly(opacity, [np.rint((points - low) * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
            # the skin turns with its part: the same map, in pixels of the window
            shift = self._pixels(place[:, 2]) - place[:, :2] @ self._pixels(np.zeros(2)) - low
            matrix = np.concatenate([place[:, :2], shift[:, None]], axis=1)
            colour = cv2.warpAffine(skin, matrix, opacity.shape[::-1], borderMode=cv2.BORDER_REFLECT_101)
            share = opacity[..., None].astype(np.float32) / 255
            window = canvas[low[1] : high[1], low[0] : high[0]]
            window *= 1 - share
            window[..., :3] += share * colour
            window[..., 3:] += share * 255
        return np.rint(canvas).astype(np.uint8)

    def _pixels(self, units: Float[np.ndarray, "... 2"]) -> Float[np.ndarray, "... 2"]:
        return (units + REACH) * self.resolution - 0.5  # pixel centres are whole numbers


def outlines(kind: Thing, rng: np.random.Generator) -> tuple[Part, ...]:
    """A random member of the class, in the order in which its parts are painted."""
    return _OUTLINES[kind](rng)


def measure(parts: tuple[Part, ...]) -> Shape:
    """Size of a thing at rest, from its painted outline."""
    resolution = 40.0
    blank = np.full((round(2 * REACH * resolution),) * 2 + (3,), 255, np.uint8)
    opacity = Sprite(parts, [blank] * len(parts), resolution, 1.0).draw(0.0, 0.0)[..., 3]
    y, x = (np.nonzero(opacity > 127)[i] / resolution - REACH for i in (0, 1))
    return Shape(
        area=len(x) / resolution**2,
        half_width=float(np.abs(x).max()),
        half_height=float(np.abs(y).max()),
        radius=float(np.hypot(x, y).max()),
        upright=len(parts) > 1,
    )


def paint(
    kind: Thing, parts: tuple[Part, ...], resolution: float, luminance: float, rng: np.random.Generator
) -> Sprite:
    """Cover a thing with photographs of its class.

    Args:
        luminance: mean grey level of what is behind; the skin is made to differ by 40 at least, for eyes and optical flow.
    """
    side = round(2 * REACH * resolution)
    names = photographs.SKINS[kind]
    name = names[rng.integers(len(names))]
    skins: list[np.ndarray] = []
    for _ in parts:
        part = photographs.crop(photographs.load(name), (side, side), rng, least=0.45)
        skins.append(photographs.recolour(part, rng, hue=40.0))
    grey = max(float(np.mean([cv2.cvtColor(skin, cv2.COLOR_RGB2GRAY).mean() for skin in skins])), 1.0)
    wanted = grey
    if abs(grey - luminance) < 40:
        wanted = luminance + 40 if luminance < 115 else luminance - 40
    return Sprite(parts, skins, resolution, min(wanted / grey, 3.0))


def _places(parts: tuple[Part, ...], amplitude: float, phase: float) -> list[Float[np.ndarray, "2 3"]]:
    """Each part's map from rest to its place, in units."""
    places: list[np.ndarray] = []
    for part in parts:
        turn = part.rest + part.swing * amplitude * np.sin(phase + part.lag)
        own = np.eye(3)
        own[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
        own[:2, 2] = part.joint - own[:2, :2] @ part.joint
        carried = np.vstack([places[part.parent], [0, 0, 1]]) if part.parent >= 0 else np.eye(3)
        places.append((carried @ own)[:2])
    return places


def _shade(side: int) -> Float[np.ndarray, "s s"]:
    """Light from above left: a thing is rounder than a cut-out."""
    axis = np.linspace(-REACH, REACH, side)
    distance = (axis[:, None] + 0.35) ** 2 + (axis[None, :] + 0.3) ** 2
    return np.clip(1.12 - 0.22 * distance, 0.5, None)


def _around(radius: Float[np.ndarray, "n"] | float, count: int = 96) -> Outline:
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _ball(rng: np.random.Generator) -> tuple[Part, ...]:
    return (Part(_around(1.0) * (1.0, rng.uniform(0.85, 1.0))),)


def _box(rng: np.random.Generator) -> tuple[Part, ...]:
    angle = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    # a superellipse of power 8: corners a little round
    corner = (np.abs(np.cos(angle)) ** 8 + np.abs(np.sin(angle)) ** 8) ** (-1 / 8)
    return (Part(_around(corner) * (rng.uniform(0.85, 1.0), rng.uniform(0.55, 0.75))),)


def _star(rng: np.random.Generator) -> tuple[Part, ...]:
    tips = int(rng.integers(5, 8))
    return (Part(_around(np.tile([1.15, rng.uniform(0.5, 0.62)], tips), 2 * tips)),)


def _blob(rng: np.random.Generator) -> tuple[Part, ...]:
    angle = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    radius = 0.9 + sum(rng.uniform(-0.3, 0.3) / k * np.cos(k * angle + rng.uniform(0, 6.3)) for k in range(2, 6))
    return (Part(_around(radius)),)


def _limb(start: tuple[float, float], stop: tuple[float, float], thick: float, thin: float) -> Outline:
    """A tapered capsule."""
    along = np.subtract(stop, start)
    heading = np.arctan2(along[1], along[0])
    half = np.linspace(np.pi / 2, 3 * np.pi / 2, 12) + heading
    first = np.stack([np.cos(half), np.sin(half)], axis=1) * thick + start
    last = np.stack([-np.cos(half), -np.sin(half)], axis=1) * thin + stop
    return np.concatenate([first, last])


def _figure(rng: np.random.Generator) -> tuple[Part, ...]:
    """A walking person; the limbs behind come first. Arms swing against the legs, knees and elbows follow later."""
    stout, spread = rng.uniform(0.9, 1.25), rng.uniform(0.25, 0.6)

    def arm(side: int, upper: int, light: float) -> tuple[Part, ...]:
        shoulder, elbow, hand = (0.17 * side, -0.45), (0.17 * side, -0.1), (0.17 * side, 0.22)
        return (
            Part(_limb(shoulder, elbow, 0.12 * stout, 0.1), shoulder, -1, -spread * side, 1.0 * side, 0.0, light),
            Part(_limb(elbow, hand, 0.1, 0.09), elbow, upper, -0.3 * side, 0.6 * side, -0.8, light),
        )

    def leg(side: int, upper: int, light: float) -> tuple[Part, ...]:
        hip, knee, foot = (0.12 * side, 0.15), (0.12 * side, 0.6), (0.12 * side, 1.05)
        return (
            Part(_limb(hip, knee, 0.16 * stout, 0.12), hip, -1, -0.12 * side, -0.7 * side, 0.0, light),
            Part(_limb(knee, foot, 0.12, 0.1), knee, upper, 0.08 * side, 0.4, -1.2, light),
        )

    torso = Part(_limb((0.0, -0.42), (0.0, 0.15), 0.25 * stout, 0.2 * stout))
    head = Part(_around(0.22) * (0.9, 1.0) + (0, -0.88), joint=(0.0, -0.65), swing=0.2)
    return (*arm(-1, 0, 0.8), *leg(-1, 2, 0.8), torso, head, *leg(1, 6, 1.0), *arm(1, 8, 1.0))


_OUTLINES: dict[str, Callable[[np.random.Generator], tuple[Part, ...]]] = {
    "ball": _ball,
    "box": _box,
    "star": _star,
    "figure": _figure,
    "blob": _blob,
}
