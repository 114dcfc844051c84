"""Which part of a stored frame fills the square: one rule for pictures and masks, whatever decodes them. Imports no torch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8

from data_tools.prune import boxes
from fbm_dist.data.order.draw import Draw
from fbm_dist.schema import ClipSpec


class Region(NamedTuple):
    """A part of a frame in pixels: even numbers, so that it cuts no sample of the colours (yuv420p) apart."""

    y0: int
    x0: int
    y1: int
    x1: int

    def shares(self, height: int, width: int) -> tuple[Float32[np.ndarray, " 2"], Float32[np.ndarray, " 2"]]:
        """Its first and its last corner (y, x) as shares of a frame's height and width."""
        size = (height, width)
        return np.divide(self[:2], size, dtype=np.float32), np.divide(self[2:], size, dtype=np.float32)


def region(
    spec: ClipSpec, height: int, width: int, draw: Draw, mask: UInt8[np.ndarray, "t h w"] | None = None
) -> Region | None:
    """The part that fills the square; None: all of it.

    Args:
        height, width: of the stored frames.
        mask: of the frames that are shown, where `spec.resize` is box: the square stands around all that it scores above one half;
            where there is nothing, around the centre of the frame. It is moved into the frame where it would reach beyond.
    """
    if spec.resize == "squash":
        return None
    shorter = min(height, width)
    if spec.resize == "crop":
        side = _even(shorter * spec.crop_share)
        y, x = (draw.y, draw.x) if spec.crop_at == "random" else (0.5, 0.5)
        return _at(side, y * (height - side), x * (width - side), height, width)
    assert mask is not None, "resize=box needs the mask"
    around = _union(mask)
    if around is None:
        return _at(_even(shorter), (height - shorter) / 2, (width - shorter) / 2, height, width)
    x0, y0, x1, y1 = around[0] * width, around[1] * height, around[2] * width, around[3] * height
    wanted = max(y1 - y0, x1 - x0) / spec.box_share * 2 ** (spec.box_scale * (2 * draw.scale - 1))
    side = _even(min(wanted, shorter))
    off_y, off_x = (spec.box_shift * side * (2 * number - 1) for number in (draw.y, draw.x))
    return _at(side, (y0 + y1 - side) / 2 + off_y, (x0 + x1 - side) / 2 + off_x, height, width)


def _union(mask: np.ndarray) -> tuple[float, float, float, float] | None:
    """x0, y0, x1, y1 in shares, around the boxes of all frames."""
    found = np.array([box for box in boxes(mask) if box is not None])
    if not len(found):
        return None
    (x0, y0), (x1, y1) = found[:, :2].min(0).tolist(), found[:, 2:].max(0).tolist()
    return x0, y0, x1, y1


def _even(length: float) -> int:
    return max(2, int(length / 2) * 2)


def _at(side: int, y: float, x: float, height: int, width: int) -> Region:
    """The square with this first corner, moved into the frame."""
    top = min(max(0, round(y / 2) * 2), height - side)
    left = min(max(0, round(x / 2) * 2), width - side)
    return Region(top, left, top + side, left + side)
