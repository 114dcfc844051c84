"""Optical flow between frames: dense inverse search (Kroeger et al. 2016), as OpenCV has it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

Preset = Literal["ultrafast", "fast", "medium"]

_PRESETS = {
    "ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
    "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
    "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
}
_MIN_SIDE = 16  # DIS needs two patches of 8 pixels


class OpticalFlow:
    """Dense flow between grey frames of one size. Cheap to make; not to be shared between threads."""

    def __init__(self, preset: Preset = "medium", finest: int | None = None) -> None:
        """`finest`: the pyramid's last level, 0 for flow at every pixel; None for the preset's own (1, or 2 in the faster ones)."""
        self._dis = cv2.DISOpticalFlow.create(_PRESETS[preset])
        if finest is not None:
            self._dis.setFinestScale(finest)

    def __call__(
        self, source: UInt8[np.ndarray, "h w"], target: UInt8[np.ndarray, "_ _"]
    ) -> Float32[np.ndarray, "h w 2"]:
        """Where each pixel of `source` is in `target`: (dx, dy) in pixels, x to the right and y down.

        Raises:
            ValueError: frames of different sizes, or smaller than 16 pixels.
        """
        if source.shape != target.shape:
            raise ValueError(f"flow needs two frames of one size, got {source.shape} and {target.shape}")
        if min(source.shape) < _MIN_SIDE:
            raise ValueError(f"flow needs frames of at least {_MIN_SIDE} pixels a side, got {source.shape}")
        # None: a given field would be taken for a first guess. OpenCV's type stubs do not know it
        return self._dis.calc(source, target, None)  # type: ignore[call-overload, no-any-return]


def flow_size(height: int, width: int, size: int, aspect: Literal["native", "square"]) -> tuple[int, int]:
    """(height, width) of the frames that flow is computed on: the shorter side is `size`, the longer at most four times that."""
    if aspect == "square":
        return size, size
    scale = size / min(height, width)
    return min(round(height * scale), 4 * size), min(round(width * scale), 4 * size)


def grey_frames(frames: UInt8[np.ndarray, "t h w 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "t y x"]:
    """RGB frames as grey ones of `size` (height, width), area-averaged where that is smaller."""
    height, width = size
    shrinks = height * width < frames.shape[1] * frames.shape[2]
    out = np.empty((len(frames), height, width), dtype=np.uint8)
    for i, frame in enumerate(frames):
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        out[i] = cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return out


def offsets(baselines: Sequence[int]) -> list[int]:
    """Where flow goes from a frame: to each of the frames -j and +j, j in `baselines`, in order."""
    return sorted({sign * j for j in baselines for sign in (-1, 1)})


def flows_around(
    grey: UInt8[np.ndarray, "t h w"], index: int, baselines: Sequence[int], flow: OpticalFlow
) -> Iterator[tuple[int, Float32[np.ndarray, "h w 2"]]]:
    """(offset, flow) from frame `index` to each of the frames index - j and index + j that exist, j in `baselines`."""
    for offset in offsets(baselines):
        if 0 <= index + offset < len(grey):
            yield offset, flow(grey[index], grey[index + offset])
