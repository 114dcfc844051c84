"""A sequence: its frames in order, and the true masks of those that somebody annotated."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from data_tools.places import sha256_of
from data_tools.sources.films import pictures_in

# one of the readable files of a folder is a picture of its sequence; .pgm are masks alone (FBMS-59)
MASKS = frozenset({".png", ".bmp", ".jpg", ".jpeg", ".ppm", ".pgm", ".tif", ".tiff"})
LOSSY = frozenset({".jpg", ".jpeg"})  # compression leaves traces of a few levels in what was 0 and 255
HALF = 127  # of 255


class Annotation(NamedTuple):
    """What is foreground in a frame, and which pixels nobody judged (None: all were)."""

    mask: Bool[np.ndarray, "h w"]
    void: Bool[np.ndarray, "h w"] | None = None


@dataclasses.dataclass(frozen=True)
class Sequence:
    """One film of a data set.

    Attributes:
        data: the data set's name: that of its folder.
        name: unique in its data set.
        frames: files in order.
        truth: the index of each annotated frame -> what reads its annotation.
    """

    data: str
    name: str
    frames: tuple[Path, ...]
    truth: Mapping[int, Callable[[], Annotation]]

    def __str__(self) -> str:
        return f"{self.data}/{self.name}"

    @property
    def annotated(self) -> list[int]:
        """Indices of the annotated frames, in order."""
        return sorted(self.truth)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the names and the bytes of all frames, read once: sizes and times do not tell other pixels.

        Raises:
            ValueError: a file cannot be read.
        """
        found = hashlib.sha256()
        for frame in self.frames:
            try:
                found.update(f"{frame.name} {sha256_of(frame)}\n".encode())
            except OSError as error:
                raise ValueError(f"{frame} cannot be read ({error.strerror}); fetch or copy it again") from None
        return found.hexdigest()

    def check_size(self) -> None:
        """All frames of a film have one size; methods take pairs, clips or all of them together.

        Raises:
            ValueError: one has another size than the first, or cannot be read.
        """
        height, width = self.size(0)
        for index, path in enumerate(self.frames):
            rows, columns = self.size(index)
            if (rows, columns) != (height, width):
                raise ValueError(
                    f"{path} is {columns}x{rows} pixels and {self.frames[0].name} {width}x{height}; "
                    "give frames of one size, or leave the sequence out"
                )

    def first(self, number: int | None) -> Sequence:
        """Its first frames alone; None: all."""
        if number is None:
            return self
        kept = {index: read for index, read in self.truth.items() if index < number}
        return dataclasses.replace(self, frames=self.frames[:number], truth=kept)

    def frame(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """A frame, RGB.

        Raises:
            ValueError: it cannot be read.
        """
        # as it is stored: masks have no note that says how to turn them
        picture = cv2.imread(str(self.frames[index]), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        if picture is None:
            raise ValueError(f"{self.frames[index]} is no readable picture; fetch or copy it again")
        return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)

    def size(self, index: int) -> tuple[int, int]:
        """(height, width) of a frame, by the head of its file.

        Raises:
            ValueError: it cannot be read.
        """
        try:
            with Image.open(self.frames[index]) as picture:
                return picture.height, picture.width
        except (OSError, ValueError, SyntaxError):
            raise ValueError(f"{self.frames[index]} is no readable picture; fetch or copy it again") from None

    def annotation(self, index: int) -> Annotation:
        """The truth of an annotated frame, in its size.

        Raises:
            ValueError: it cannot be read, or has another size than the frame.
        """
        found, size = self.truth[index](), self.size(index)
        if found.mask.shape != size:
            (height, width), (rows, columns) = size, found.mask.shape
            raise ValueError(
                f"{self}: the mask of {self.frames[index].name} is {columns}x{rows} pixels and the frame {width}x{height}; "
                "take frames and masks of one resolution"
            )
        return found


def any_object(files: Iterable[Path], above: int = 0) -> Annotation:
    """The union of what is foreground in each of these pictures, one an object or one for all of them.

    Foreground is what is above `above` in any channel (of JPEG files above half, at least), or any object's number in a picture with a
    palette; there number 255 means that nobody judged the pixel, if other numbers occur (DAVIS 2017).

    Raises:
        ValueError: a file cannot be read, or they differ in size.
    """
    mask: np.ndarray | None = None
    void: np.ndarray | None = None
    for file in files:
        values, numbered = pixels(file)
        if values.ndim == 3:
            values = values.max(axis=2)
        own = values > (max(above, HALF) if file.suffix.lower() in LOSSY else above)
        if numbered and ((values > 0) & (values < 255)).any():
            unjudged = values == 255
            own &= ~unjudged
            void = unjudged if void is None else void | unjudged
        if mask is not None and mask.shape != own.shape:
            raise ValueError(f"{file}: of another size than the mask of the frame's other objects")
        mask = own if mask is None else mask | own
    assert mask is not None, "an annotated frame has a file"
    return Annotation(mask, void if void is not None and void.any() else None)


def pixels(file: Path) -> tuple[np.ndarray, bool]:
    """The values of a mask's file: (h, w), or (h, w, 3), without alpha; and whether they are numbers into a palette.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        with Image.open(file) as picture:
            values, numbered = np.asarray(picture), picture.mode in ("P", "PA")
    except (OSError, ValueError, SyntaxError) as error:
        raise ValueError(f"{file} is no readable mask: {' '.join(str(error).split())}") from None
    if values.ndim == 3:  # grey (or numbers) with alpha, or colours with or without it
        values = values[..., 0] if values.shape[2] == 2 else values[..., :3]
    return values, numbered


def masks_in(folder: Path) -> list[Path]:
    """The files of masks directly in a folder, by name."""
    found = [path for path in folder.iterdir() if path.suffix.lower() in MASKS and not path.name.startswith(".")]
    return sorted(found, key=lambda path: path.name)


def frames_in(folder: Path) -> tuple[Path, ...]:
    """The pictures directly in a folder, in the order of their names (numbers by value).

    Raises:
        ValueError: there are none.
    """
    found = tuple(Path(str(path)) for path in pictures_in(folder))
    if not found:
        raise ValueError(f"{folder}: no pictures; give the data set as it was unpacked")
    return found


def matched(
    frames: Iterable[Path], masks: Mapping[str, Callable[[], Annotation]]
) -> dict[int, Callable[[], Annotation]]:
    """The truth of frames by the stems of their names; masks without a frame are left out."""
    return {index: masks[frame.stem] for index, frame in enumerate(frames) if frame.stem in masks}
