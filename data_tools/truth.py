"""The true masks of a film: pictures that somebody drew, or boxes that somebody put around what moves."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from data_tools.places import Place, read_bytes
from data_tools.sources.boxes import Box
from data_tools.sources.films import Film, pictures_in
from data_tools.videos import Unusable


class Truth(ABC):
    """The true masks of one film; falsy where it has none."""

    @property
    @abstractmethod
    def count(self) -> int:
        """How many of the film's own frames somebody annotated."""

    @abstractmethod
    def strip(
        self, sources: Sequence[int], shown: tuple[int, int], size: tuple[int, int]
    ) -> UInt8[np.ndarray, "t h w"] | None:
        """The masks of frames of a clip, 255 inside and 0 outside; None where one of the frames has none.

        Args:
            sources: the frames' indices among the film's own.
            shown: (height, width) of the film's own frames as shown.
            size: (height, width) of the masks wanted.
        Raises:
            Unusable: a mask that cannot be read, or of another shape than the frames.
        """

    def __bool__(self) -> bool:
        return self.count > 0


def true_masks(film: Film) -> Truth:
    """The true masks of a film on this machine. Pictures go before boxes.

    Pictures have the frames' names; where they have not, as for a video, the order counts, and of frames there must be as many
    as pictures. Where a film has boxes, a frame without one has an empty mask.
    """
    masks: list[Place | None] = list(pictures_in(film.masks)) if film.masks is not None else []
    if film.boxes and not masks:
        return Boxes(film.boxes)
    if film.kind == "video" or not masks:
        return Pictures(masks)
    frames = pictures_in(film.path) if film.kind == "frames" else [film.path]
    named = {mask.stem: mask for mask in masks if mask is not None}
    matched = [named.get(frame.stem) for frame in frames]
    unnamed = named.keys() - {frame.stem for frame in frames}
    return Pictures(masks if unnamed and len(masks) == len(frames) else matched)


class Pictures(Truth):
    """True masks from pictures, one for each of the film's own frames; None where a frame has none."""

    def __init__(self, pictures: Sequence[Place | None]) -> None:
        self.pictures = list(pictures)

    def __bool__(self) -> bool:
        return bool(self.pictures)

    @property
    def count(self) -> int:
        return sum(picture is not None for picture in self.pictures)

    def strip(
        self, sources: Sequence[int], shown: tuple[int, int], size: tuple[int, int]
    ) -> UInt8[np.ndarray, "t h w"] | None:
        own = [self.pictures[source] if source < len(self.pictures) else None for source in sources]
        there = [picture for picture in own if picture is not None]
        return np.stack([_mask(picture, shown, size) for picture in there]) if len(there) == len(own) else None


class Boxes(Truth):
    """True masks from boxes: the union of a frame's boxes; they may reach out of the picture."""

    def __init__(self, boxes: Sequence[Box]) -> None:
        self._boxes: dict[int, list[Box]] = {}
        for box in boxes:
            self._boxes.setdefault(box.frame, []).append(box)

    @property
    def count(self) -> int:
        return len(self._boxes)

    def strip(
        self, sources: Sequence[int], shown: tuple[int, int], size: tuple[int, int]
    ) -> UInt8[np.ndarray, "t h w"] | None:
        # the places of the masks' pixel centres in the film's own frame
        y = (np.arange(size[0]) + 0.5) * (shown[0] / size[0])
        x = (np.arange(size[1]) + 0.5) * (shown[1] / size[1])
        strip = np.zeros((len(sources), *size), np.uint8)
        for mask, source in zip(strip, sources, strict=True):
            for box in self._boxes.get(source, ()):
                rows, columns = (box.y0 <= y) & (y < box.y1), (box.x0 <= x) & (x < box.x1)
                mask[np.ix_(rows, columns)] = 255
        return strip


def _mask(path: Place, shown: tuple[int, int], size: tuple[int, int]) -> UInt8[np.ndarray, "h w"]:
    try:
        with Image.open(io.BytesIO(read_bytes(path))) as picture:
            mask = np.asarray(picture)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Unusable(f"the true mask {path.name} cannot be read: {' '.join(str(error).split())}") from None
    inside = (mask[..., :3].max(axis=2) if mask.ndim == 3 else mask) > 0  # any object's colour or number
    if abs(inside.shape[1] * shown[0] - inside.shape[0] * shown[1]) > 0.1 * inside.shape[0] * shown[1]:
        raise Unusable(f"the true mask {path.name} has another shape than the frames")
    return cv2.resize(inside.astype(np.uint8) * 255, size[::-1], interpolation=cv2.INTER_NEAREST)
