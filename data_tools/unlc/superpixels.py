"""Superpixels of a frame (SLIC, Achanta et al. 2012) and means over them."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8
from skimage.segmentation import slic

from data_tools.unlc.config import Superpixels

ENOUGH = 16  # pixels of a region: frames in which regions would have fewer are not made smaller


def lab_frame(frame: UInt8[np.ndarray, "h w 3"], blur: float = 0.0) -> Float32[np.ndarray, "h w 3"]:
    """RGB as CIE Lab: L in [0, 100], a and b in [-128, 127]; blurred before by a Gaussian of sigma `blur` pixels."""
    colours: np.ndarray = frame.astype(np.float32) / 255
    if blur > 0:
        colours = cv2.GaussianBlur(colours, (0, 0), blur, borderType=cv2.BORDER_REFLECT)
    return cv2.cvtColor(colours, cv2.COLOR_RGB2LAB)


def superpixels(frame: UInt8[np.ndarray, "h w 3"], settings: Superpixels) -> Int64[np.ndarray, "h w"]:
    """Region of each pixel: 0 .. n - 1, every number in use."""
    height, width = frame.shape[:2]
    factor = shrinking(height, width, settings)
    if factor == 1:
        return _regions(frame, settings.blur, settings)
    small = cv2.resize(frame, (width // factor, height // factor), interpolation=cv2.INTER_AREA)
    found = _regions(small, settings.blur / factor, settings).astype(np.int32)
    return cv2.resize(found, (width, height), interpolation=cv2.INTER_NEAREST).astype(np.int64)


def shrinking(height: int, width: int, settings: Superpixels) -> int:
    """The factor by which a frame is really made smaller: 1 where its regions would have too few pixels."""
    enough = height * width >= settings.shrink**2 * settings.number * ENOUGH
    return settings.shrink if enough else 1


def _regions(frame: UInt8[np.ndarray, "h w 3"], blur: float, settings: Superpixels) -> Int64[np.ndarray, "h w"]:
    lab = lab_frame(frame, blur)
    span = float(lab.max() - lab.min())
    if span == 0:
        # SLIC has no centres to move in a frame of one colour
        return _grid(lab.shape[0], lab.shape[1], settings.number)
    # scikit-image stretches its input to [0, 1]; compactness is meant in Lab units
    labels = slic(
        lab,
        n_segments=settings.number,
        compactness=settings.compactness / span,
        max_num_iter=settings.iterations,
        convert2lab=False,
        enforce_connectivity=settings.connected,
        start_label=0,
        channel_axis=-1,
    )
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.int64)


def region_means(
    labels: Int64[np.ndarray, "h w"], picture: Float32[np.ndarray, "h w"], number: int
) -> Float64[np.ndarray, "n"]:
    """Mean of `picture` over each of the `number` regions."""
    sums = np.bincount(labels.ravel(), weights=picture.ravel(), minlength=number)
    return sums / np.bincount(labels.ravel(), minlength=number)


def _grid(height: int, width: int, number: int) -> Int64[np.ndarray, "h w"]:
    step = max(1, round((height * width / number) ** 0.5))
    rows, columns = np.arange(height) // step, np.arange(width) // step
    return rows[:, None] * (columns[-1] + 1) + columns
