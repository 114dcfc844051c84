"""Masks of a stored clip as squares, cut like its frames; for readers that decode the frames too. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from data_tools.sample import png_to_strip
from fbm_dist.data.decoding.frames import UndecodableError
from fbm_dist.data.decoding.region import Region


def strip_of(data: bytes, frames: int, height: int, width: int) -> UInt8[np.ndarray, "t h w"]:
    """All stored masks of a clip.

    Args:
        data: PNG bytes of the masks, one above the other.
    Raises:
        UndecodableError: damaged bytes, or another size.
    """
    try:
        strip = png_to_strip(data, frames)
    except (OSError, ValueError, SyntaxError) as error:  # Pillow raises SyntaxError on bad PNGs
        raise UndecodableError(f"mask: {type(error).__name__}: {' '.join(str(error).split())}") from None
    if strip.shape != (frames, height, width):
        raise UndecodableError(f"the masks are {strip.shape}, the index says {(frames, height, width)}")
    return strip


def squares(
    masks: UInt8[np.ndarray, "t h w"],
    into: Sequence[UInt8[np.ndarray, "side side"]],
    part: Region | None,
    frame: tuple[int, int],
    *,
    soft: bool,
) -> None:
    """Resize each mask, or the part of it that `part` is of its frame, as DALI does: within a level of 255, but for the edge of a part.

    Args:
        part: in pixels of the frame, which may be larger than its mask; None: the whole.
        frame: its height and width.
        soft: scores are blended; hard masks keep their values.
    """
    height, width = masks.shape[1:]
    side = len(into[0])
    y0, x0, y1, x1 = (0.0, 0.0, float(height), float(width))
    if part is not None:
        y, x = height / frame[0], width / frame[1]
        y0, x0, y1, x1 = part.y0 * y, part.x0 * x, part.y1 * y, part.x1 * x
    whole = all(number.is_integer() for number in (y0, x0, y1, x1))
    if whole and y1 - y0 <= side and x1 - x0 <= side:  # the usual case has a fast way: enlarged, from whole pixels
        cut = masks[:, int(y0) : int(y1), int(x0) : int(x1)]
        for mask, square in zip(cut, into, strict=True):
            cv2.resize(mask, (side, side), square, interpolation=cv2.INTER_LINEAR if soft else cv2.INTER_NEAREST_EXACT)
        return
    filtered = Image.Resampling.BILINEAR if soft else Image.Resampling.NEAREST
    for mask, square in zip(masks, into, strict=True):
        square[:] = np.asarray(Image.fromarray(mask).resize((side, side), filtered, box=(x0, y0, x1, y1)))
