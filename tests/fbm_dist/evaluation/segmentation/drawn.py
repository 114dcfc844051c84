"""Tiny films with true masks, written as people write pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (48, 64)  # height, width
SQUARE = 16  # pixels


def scene(index: int, size: tuple[int, int] = SIZE, step: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Frame `index` (h, w, 3) of a rough square that moves to the right over a still, rough ground; and where it is (h, w)."""
    ground = np.random.default_rng(1).integers(0, 120, (*size, 3), np.uint8)
    thing = np.random.default_rng(2).integers(140, 255, (SQUARE, SQUARE, 3), np.uint8)
    mask = np.zeros(size, bool)
    left = (10 + step * index) % (size[1] - SQUARE)
    mask[14 : 14 + SQUARE, left : left + SQUARE] = True
    frame = ground.copy()
    frame[14 : 14 + SQUARE, left : left + SQUARE] = thing
    return frame, mask


def save(path: Path, values: np.ndarray, palette: bool = False) -> Path:
    """A picture in the format that the name says; with `palette` the values are numbers of colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(values)
    if palette:
        picture = Image.fromarray(values, "L").convert("P")
        picture.putdata(values.ravel().tolist())
        picture.putpalette([(i * 37) % 256 for i in range(768)])
    picture.save(path)
    return path


def write_film(folder: Path, frames: int = 6, names: str = "{:05d}", size: tuple[int, int] = SIZE) -> list[np.ndarray]:
    """`folder`/frames/*.png and `folder`/masks/*.png (one bit); the masks."""
    masks = []
    for index in range(frames):
        frame, mask = scene(index, size)
        save(folder / "frames" / f"{names.format(index)}.png", frame)
        save(folder / "masks" / f"{names.format(index)}.png", mask)
        masks.append(mask)
    return masks


def write_frames(folder: Path, names: Sequence[str], size: tuple[int, int] = SIZE) -> None:
    """`folder`/NAME for each name."""
    for index, name in enumerate(names):
        save(folder / name, scene(index, size)[0])
