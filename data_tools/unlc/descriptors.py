"""What a superpixel looks like and where it is: the 176 numbers that the graph compares (uNLC's published code, region descriptor)."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float32, Int64, UInt8

from data_tools.unlc.superpixels import lab_frame

PATCH = 15  # side of the square around the centre of a region's bounding box, pixels
ORIENTATIONS = 6  # of HOG, over 180 degrees
CELL = 5  # pixels; 3 x 3 cells in one block
BINS = 20  # of each colour channel
NUM_FEATURES = ORIENTATIONS * 9 + BINS * 6 + 2  # 54 + 120 + 2


def region_descriptors(
    frame: UInt8[np.ndarray, "h w 3"], labels: Int64[np.ndarray, "h w"]
) -> Float32[np.ndarray, "n 176"]:
    """HOG (54, L1-normalised), histograms of R, G, B, L, a, b (20 bins each, each sums to 1), top / h and left / w of the patch.

    Args:
        frame: at least 15 pixels a side.
        labels: regions 0 .. n - 1, every number in use.
    """
    corners = patch_corners(labels)
    rows = corners[:, 0, None] + np.arange(PATCH)
    columns = corners[:, 1, None] + np.arange(PATCH)
    pixels = rows[:, :, None], columns[:, None, :]  # indexes a picture as (n, 15, 15)
    out = np.empty((len(corners), NUM_FEATURES), dtype=np.float32)
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    out[:, :54] = _orientations(grey[pixels])
    out[:, 54:174] = _colours(colour_bins(frame)[pixels])
    out[:, 174:] = corners / labels.shape
    return out


def patch_corners(labels: Int64[np.ndarray, "h w"]) -> Int64[np.ndarray, "n 2"]:
    """(top, left) of each region's patch, shifted to lie inside the frame."""
    height, width = labels.shape
    number = int(labels.max()) + 1
    corners = np.empty((number, 2), dtype=np.int64)
    for axis, size in enumerate((height, width)):
        # the extent along one axis: which regions occur in each row (or column)
        present = np.zeros((number, size), dtype=bool)
        places = np.arange(size)[:, None] if axis == 0 else np.arange(size)[None, :]
        present[labels, np.broadcast_to(places, labels.shape)] = True
        first = present.argmax(1)
        last = size - 1 - present[:, ::-1].argmax(1)
        corners[:, axis] = np.clip((first + last) // 2 - PATCH // 2, 0, size - PATCH)
    return corners


def colour_bins(frame: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 6"]:
    """Histogram bin (0..19) of R, G, B (range 0..255), L (0..100), a and b (-128..127)."""
    lab = lab_frame(frame)
    lower = np.array([0, -128, -128], dtype=np.float32)
    width = np.array([100, 255, 255], dtype=np.float32) / BINS
    rgb_bins = frame.astype(np.uint16) * BINS // 255
    lab_bins = np.maximum(lab - lower, 0) / width
    return np.minimum(np.concatenate([rgb_bins, lab_bins], -1), BINS - 1).astype(np.uint8)


def _colours(bins: UInt8[np.ndarray, "n 15 15 6"]) -> Float32[np.ndarray, "n 120"]:
    number = len(bins)
    offsets = np.arange(number)[:, None, None, None] * (6 * BINS) + np.arange(6) * BINS
    counts = np.bincount((bins + offsets).ravel(), minlength=number * 6 * BINS)
    return (counts.reshape(number, -1) / PATCH**2).astype(np.float32)


def _orientations(patches: Float32[np.ndarray, "n 15 15"]) -> Float32[np.ndarray, "n 54"]:
    """HOG with hard bins and one L1-normalised block of 3 x 3 cells, as scikit-image's `block_norm="L1"`."""
    down, right = np.zeros_like(patches), np.zeros_like(patches)
    down[:, 1:-1] = patches[:, 2:] - patches[:, :-2]
    right[:, :, 1:-1] = patches[:, :, 2:] - patches[:, :, :-2]
    magnitude, angle = cv2.cartToPolar(right.reshape(-1, PATCH), down.reshape(-1, PATCH), angleInDegrees=True)
    orientation = (angle % 180 / (180 / ORIENTATIONS)).astype(np.int64) % ORIENTATIONS
    number = len(patches)
    cell = np.arange(PATCH) // CELL
    cells = (cell[:, None] * 3 + cell) * ORIENTATIONS
    places = orientation.reshape(-1, PATCH, PATCH) + cells + np.arange(number)[:, None, None] * 54
    sums = np.bincount(places.ravel(), weights=magnitude.ravel(), minlength=number * 54).reshape(number, 54)
    cells_mean = sums / CELL**2
    return (cells_mean / (cells_mean.sum(1, keepdims=True) + 1e-5)).astype(np.float32)
