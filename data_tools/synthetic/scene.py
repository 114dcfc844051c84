"""One shot, drawn: a photograph seen by a camera that may move, a thing in front of it, light and sensor noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from data_tools.synthetic import photographs, things
from data_tools.synthetic.config import Motion, Synthesize, Thing
from data_tools.synthetic.factors import Shot
from data_tools.synthetic.motion import DIRECTIONS, Trajectory, trajectory

WAVE_NUMBER = 2.2  # radians a unit: three quarters of a wave stand in a waving body


@dataclass(frozen=True)
class Actor:
    """A thing and its way through the shot."""

    sprite: things.Sprite
    way: Trajectory


@dataclass(frozen=True)
class Scene:
    """All that the camera sees. Frame t does not depend on the frames before it, but for the noise."""

    size: tuple[int, int]
    plate: UInt8[np.ndarray, "h0 w0 3"]  # the background, with room for the camera to move
    camera: Float[np.ndarray, "t 2 3"]  # from pixels of the picture to pixels of the plate
    thing: Actor | None  # None: the background alone
    distractors: tuple[Actor, ...]  # behind the thing, in no mask
    light: Float[np.ndarray, "t"]  # brightness of a frame, about 1
    blur: float  # of the lens: standard deviation in pixels
    noise: float  # of the sensor: standard deviation in grey levels
    seed: tuple[int, ...]


def compose(settings: Synthesize, film: int, shot: Shot) -> Scene:
    """Draw everything that is random in a shot but its noise: a function of (settings, film, shot number)."""
    rng = np.random.default_rng([settings.seed, 3, film, shot.number])
    length, size = shot.stop - shot.start, settings.size
    plate, camera = _background(settings, shot, rng)
    luminance = float(cv2.cvtColor(plate, cv2.COLOR_RGB2GRAY).mean())
    thing = _actor(
        cast(Thing, shot.labels["object"]),
        cast(Motion, shot.labels["motion"]),
        length,
        size,
        luminance,
        rng,
        settings.coverage,
    )
    distractors = tuple(
        _actor(
            cast(Thing, rng.choice(settings.objects)),
            cast(Motion, rng.choice(list(DIRECTIONS))),
            length,
            size,
            luminance,
            rng,
            coverage=(0.004, 0.012),
        )
        for _ in range(settings.distractors)
    )
    slow = np.sin(2 * np.pi * np.arange(length) / rng.uniform(20, 60) + rng.uniform(0, 2 * np.pi))
    light = 1 + settings.flicker * (0.7 * slow + 0.3 * rng.uniform(-1, 1, length))
    return Scene(
        size=size,
        plate=plate,
        camera=camera,
        thing=thing,
        distractors=distractors,
        light=light,
        blur=rng.uniform(0.3, 0.6),
        noise=rng.uniform(*settings.noise),
        seed=(settings.seed, 4, film, shot.number),
    )


def render(scene: Scene) -> Iterator[tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]]]:
    """RGB frames and the true masks of the thing: where it hides more than half of a pixel."""
    rng = np.random.default_rng(scene.seed)
    height, width = scene.size
    still = bool((scene.camera == scene.camera[0]).all())
    background = _view(scene, 0)
    for t, light in enumerate(scene.light):
        frame = background.copy() if still else _view(scene, t)
        for actor in scene.distractors:
            _place(frame, actor, t)
        opacity = _place(frame, scene.thing, t) if scene.thing else np.zeros(scene.size, np.uint8)
        cv2.GaussianBlur(frame, (0, 0), scene.blur, dst=frame)
        frame *= light
        frame += scene.noise * rng.standard_normal((height, width, 3), dtype=np.float32)
        yield np.rint(np.clip(frame, 0, 255)).astype(np.uint8), opacity > 127


def _actor(
    kind: Thing,
    motion: Motion,
    num_frames: int,
    size: tuple[int, int],
    luminance: float,
    rng: np.random.Generator,
    coverage: tuple[float, float],
) -> Actor:
    parts = things.outlines(kind, rng)
    way = trajectory(motion, things.measure(parts), num_frames, size, rng, coverage)
    # drawn once for all its sizes: between the smallest and the largest, neither is far from the canvas
    resolution = 1.1 * float(np.sqrt(way.scale.min() * way.scale.max()))
    return Actor(things.paint(kind, parts, resolution, luminance, rng), way)


def _background(
    settings: Synthesize, shot: Shot, rng: np.random.Generator
) -> tuple[UInt8[np.ndarray, "h0 w0 3"], Float[np.ndarray, "t 2 3"]]:
    """A crop of one of the class's photographs, and the camera's way over it."""
    length = shot.stop - shot.start
    size = np.array(settings.size[::-1], dtype=np.float64)  # x, y from here on
    pan, zoom, shake = np.zeros(2), np.ones(length), np.zeros((length, 2))
    if shot.labels["camera"] == "moving":
        kind = rng.choice(["pan", "zoom", "both"], p=[0.5, 0.2, 0.3])
        if kind != "zoom":  # 0.2 to 0.6 % of the picture's width a frame, in any direction
            heading = rng.uniform(0, 2 * np.pi)
            way = min(rng.uniform(0.002, 0.006) * length, 0.6) * size[0]
            pan = way * np.array([np.cos(heading), np.sin(heading)])
        if kind != "pan":
            zoom = rng.uniform(1.12, 1.35) ** np.linspace(0, 1, length)
            zoom = zoom[::-1] if rng.random() < 0.5 else zoom
        window = np.hanning(9) / np.hanning(9).sum()  # a hand trembles over a few frames, not from frame to frame
        shake = np.stack([np.convolve(rng.normal(0, 0.6, length + 8), window, "valid") for _ in range(2)], axis=1)
    margin = np.abs(shake).max(axis=0) if length else np.zeros(2)
    room = np.ceil(np.abs(pan) / 2 + margin)
    plate_size = (size + 2 * room).astype(int)
    names = photographs.BACKGROUNDS[shot.labels["background"]]
    photograph = photographs.load(names[rng.integers(len(names))])
    plate = photographs.recolour(photographs.crop(photograph, (int(plate_size[1]), int(plate_size[0])), rng), rng)
    centre = (plate_size - 1) / 2 + np.linspace(-0.5, 0.5, length)[:, None] * pan + shake
    camera = np.zeros((length, 2, 3))
    camera[:, 0, 0] = camera[:, 1, 1] = 1 / zoom
    camera[:, :, 2] = centre - (size - 1) / 2 / zoom[:, None]
    return plate, camera


def _view(scene: Scene, t: int) -> Float32[np.ndarray, "h w 3"]:
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    view = cv2.warpAffine(
        scene.plate, scene.camera[t], scene.size[::-1], flags=flags, borderMode=cv2.BORDER_REFLECT_101
    )
    return view.astype(np.float32)


def _place(frame: Float32[np.ndarray, "h w 3"], actor: Actor, t: int) -> UInt8[np.ndarray, "h w"]:
    """Draw an actor into `frame`; returns its opacity."""
    height, width = frame.shape[:2]
    way, opacity = actor.way, np.zeros((height, width), np.uint8)
    x, y, scale, angle = (float(curve[t]) for curve in (way.x, way.y, way.scale, way.angle))
    reach = scale * things.REACH * 2**0.5
    left, right = max(int(x - reach), 0), min(int(x + reach) + 2, width)
    top, bottom = max(int(y - reach), 0), min(int(y + reach) + 2, height)
    if left >= right or top >= bottom:
        return opacity
    # from each pixel back to the canvas: turn and scale, then undo the wave that runs down the body
    across = (np.arange(left, right, dtype=np.float32)[None, :] - x) / scale
    down = (np.arange(top, bottom, dtype=np.float32)[:, None] - y) / scale
    u = np.cos(angle) * across + np.sin(angle) * down
    v = -np.sin(angle) * across + np.cos(angle) * down
    if way.bend[t]:
        u = u - way.bend[t] * np.sin(WAVE_NUMBER * v - way.phase[t])
    resolution = actor.sprite.resolution
    maps = [((w + things.REACH) * resolution - 0.5).astype(np.float32) for w in (u, v)]
    canvas = actor.sprite.draw(float(way.swing[t]), float(way.phase[t]))
    drawn = cv2.remap(canvas, maps[0], maps[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    window = frame[top:bottom, left:right]
    window *= 1 - drawn[..., 3:].astype(np.float32) / 255
    window += drawn[..., :3]
    opacity[top:bottom, left:right] = drawn[..., 3]
    return opacity
