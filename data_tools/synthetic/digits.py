"""Moving MNIST: digits that bounce about a black square, each in a colour of its own (Denton and Birodkar, 2017, section 4.2)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import cv2
import numpy as np
from jaxtyping import Bool, Int64, UInt8

from data_tools.config import ConfigError
from data_tools.synthetic.config import MovingMnist
from data_tools.synthetic.factors import FilmPlan, Shot, splits

SIDE = 64  # of the square, in pixels before `scale`
DIGIT = 32  # of a digit
SPEEDS = (-4, -3, -2, -1, 1, 2, 3, 4)  # pixels a frame, along either axis; never 0: the authors' intention
VALIDATION = 10  # every tenth digit of the file `train` is val's


@dataclass(frozen=True)
class Cast:
    """What is drawn for a film, digit by digit; `number` is its place in the file."""

    number: Int64[np.ndarray, "d"]
    start: Int64[np.ndarray, "d 2"]  # row and column of its upper left corner
    speed: Int64[np.ndarray, "d 2"]
    order: Int64[np.ndarray, "d"]  # from the rearmost to the one in front


def plan(settings: MovingMnist) -> list[FilmPlan]:
    """All films, one shot each. A film's plan does not depend on how many follow.

    Raises:
        ConfigError: a file of digits that is none.
    """
    films = []
    for number, split in zip(range(settings.films), splits(settings.split), strict=False):
        _, classes = _file(settings, split)
        chosen = classes[cast(settings, number, split).number]
        labels = {name: str(int(c)) for name, c in zip(settings.factors, chosen, strict=True)}
        films.append(FilmPlan(number, split, (Shot(0, 0, settings.frames, labels),)))
    return films


def cast(settings: MovingMnist, number: int, split: str) -> Cast:
    """A function of (settings, film): which digits, where, how fast."""
    rng = np.random.default_rng([settings.seed, 5, number])
    there = _of_split(len(_file(settings, split)[1]), split)
    return Cast(
        number=rng.choice(there, settings.digits),
        start=rng.integers(0, SIDE - DIGIT + 1, (settings.digits, 2)),
        speed=rng.choice(SPEEDS, (settings.digits, 2)),
        order=rng.permutation(settings.digits),
    )


def path(start: Int64[np.ndarray, "d 2"], speed: Int64[np.ndarray, "d 2"], frames: int) -> Int64[np.ndarray, "t d 2"]:
    """Where the corners are in each frame. What would cross a wall stops there, and goes back from the next frame on."""
    places, now = [start], speed.copy()
    for _ in range(frames - 1):
        reached = places[-1] + now
        now = np.where((reached < 0) | (reached > SIDE - DIGIT), -now, now)
        places.append(reached.clip(0, SIDE - DIGIT))
    return np.stack(places)


def paint(
    digits: UInt8[np.ndarray, "d 32 32"], places: Int64[np.ndarray, "d 2"], order: Int64[np.ndarray, "d"]
) -> UInt8[np.ndarray, "64 64 3"]:
    """One frame: digit i in colour channel i; what stands in front blots out what is behind it."""
    frame = np.zeros((SIDE, SIDE, 3), np.uint8)
    for i in order:
        row, column = places[i]
        window = frame[row : row + DIGIT, column : column + DIGIT]
        window[digits[i] > 0] = 0
        window[..., i] = np.maximum(window[..., i], digits[i])
    return frame


def render(
    settings: MovingMnist, film: FilmPlan
) -> Iterator[tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]]]:
    """RGB frames and the true masks: where any digit is brighter than half."""
    drawn = cast(settings, film.number, film.split)
    digits = np.stack([enlarged(image) for image in _file(settings, film.split)[0][drawn.number]])
    for places in path(drawn.start, drawn.speed, settings.frames):
        frame = paint(digits, places, drawn.order)
        frame = frame.repeat(settings.scale, axis=0).repeat(settings.scale, axis=1)
        yield frame, frame.max(axis=2) > 127


def enlarged(image: UInt8[np.ndarray, "28 28"]) -> UInt8[np.ndarray, "32 32"]:
    """A digit at the size in which it moves."""
    return cv2.resize(image, (DIGIT, DIGIT), interpolation=cv2.INTER_LINEAR).astype(np.uint8)


def told(settings: MovingMnist) -> dict[str, Any]:
    """What a folder remembers of the files of digits: their bytes, not where they lie."""
    files = {"train": settings.train, "test": settings.test}
    return {name: None if file is None else _digest(file) for name, file in files.items()}


@lru_cache(maxsize=4)
def _of_split(count: int, split: str) -> Int64[np.ndarray, "n"]:
    """The places of a file that films of this split may show."""
    there = np.arange(count)
    return there if split == "test" else there[(there % VALIDATION == VALIDATION - 1) == (split == "val")]


def _file(settings: MovingMnist, split: str) -> tuple[UInt8[np.ndarray, "n 28 28"], Int64[np.ndarray, "n"]]:
    file = settings.test if split == "test" else settings.train
    assert file is not None, "the config has seen to it"
    return read(file)


@lru_cache(maxsize=2)
def read(file: Path) -> tuple[UInt8[np.ndarray, "n 28 28"], Int64[np.ndarray, "n"]]:
    """Digits and their classes.

    Raises:
        ConfigError: no such file, or other things in it.
    """
    try:
        with np.load(file, allow_pickle=False) as found:
            x, y = found["x"], found["y"].astype(np.int64)
    except (OSError, KeyError, ValueError, BadZipFile, EOFError) as error:
        raise ConfigError(
            f"{file}: no npz file with x and y ({error}); give MNIST as numpy.savez(file, x=, y=)"
        ) from None
    if x.dtype != np.uint8 or x.ndim != 3 or x.shape[1:] != (28, 28) or len(x) != len(y) or len(x) < VALIDATION:
        raise ConfigError(
            f"{file}: x is {x.dtype} of {x.shape} and y of {y.shape}; x must be uint8 of (n, 28, 28), y of (n,)"
        )
    return x, y


@lru_cache(maxsize=2)
def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
