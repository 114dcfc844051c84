"""The dominant motion of one flow field, and how far each pixel deviates from it (Faktor & Irani 2014, section 3.1)."""

from __future__ import annotations

import functools

import cv2
import numpy as np
from jaxtyping import Float32, Float64

from data_tools.unlc.config import Motion

FlowField = Float32[np.ndarray, "h w 2"]
Deviation = Float32[np.ndarray, "h w"]


def deviation(flow: FlowField, settings: Motion) -> Deviation | None:
    """Unsmoothed saliency of each pixel, >= 0; None where the flow has no dominant motion."""
    if settings.dominant == "histogram":
        return histogram_deviation(flow, settings)
    return plane_deviation(flow, settings)


def histogram_deviation(flow: FlowField, settings: Motion) -> Deviation | None:
    """The paper's test: a static camera, else one direction, else nothing.

    Static (the median magnitude is below `static`): the squared magnitude, in pixels^2. Translating (one bin of the magnitude-weighted
    histogram of orientations holds more than `translating`): the squared angle to the bin's centre, in radian^2, magnitude ignored.
    """
    magnitude, angle = cv2.cartToPolar(flow[..., 0], flow[..., 1])  # angle in [0, 2 pi)
    if np.median(magnitude) < settings.static:
        return magnitude**2
    width = 2 * np.pi / settings.bins
    bins = np.minimum((angle / width).astype(np.int64), settings.bins - 1)
    histogram = np.bincount(bins.ravel(), weights=magnitude.ravel(), minlength=settings.bins)
    best = int(histogram.argmax())
    if histogram[best] <= settings.translating * histogram.sum():
        return None
    difference = np.abs(angle - np.float32((best + 0.5) * width))
    return np.minimum(difference, np.float32(2 * np.pi) - difference) ** 2


def plane_deviation(flow: FlowField, settings: Motion) -> Deviation | None:
    """Distance to the motion of a rigid plane under a moving camera, to the `power`; a robust fit, so that the object does not count."""
    residual = flow - fit_plane(flow)
    squared = residual[..., 0] ** 2 + residual[..., 1] ** 2
    if np.mean(squared < settings.inlier**2) < settings.min_inliers:
        return None
    return squared if settings.power == 2 else squared ** np.float32(settings.power / 2)


def fit_plane(flow: FlowField, num_iterations: int = 12, grid: int = 32) -> FlowField:
    """The 8-parameter motion of a plane that most pixels follow.

    u = a0 + a1 x + a2 y + a6 x^2 + a7 xy, v = a3 + a4 x + a5 y + a6 xy + a7 y^2 (Bergen et al. 1992, eq. for planar surface flow), by
    iteratively reweighted least squares with Geman-McClure weights, whose scale falls from the data's own spread to half a pixel.
    """
    height, width = flow.shape[:2]
    rows = np.linspace(0, height - 1, min(height, grid)).round().astype(int)
    columns = np.linspace(0, width - 1, min(width, grid)).round().astype(int)
    design = _design(height, width)
    seen = design[:, rows[:, None], columns].reshape(2, -1, 8).astype(np.float64)
    motion = flow[rows[:, None], columns].reshape(-1, 2).astype(np.float64).T  # 2, n
    parameters = np.zeros(8)
    parameters[0], parameters[3] = np.median(motion[0]), np.median(motion[1])
    scale = np.inf
    for _ in range(num_iterations):
        error = np.square(motion - seen @ parameters).sum(0)
        scale = max(0.5, min(scale * 0.7, 2 * float(np.sqrt(np.median(error)))))
        weights = 1 / np.square(1 + error / scale**2)
        parameters = _solve(seen, motion, weights)
    return (design.reshape(2, -1, 8) @ parameters.astype(np.float32)).T.reshape(height, width, 2)


def _solve(
    design: Float64[np.ndarray, "2 n 8"], motion: Float64[np.ndarray, "2 n"], weights: Float64[np.ndarray, "n"]
) -> Float64[np.ndarray, "8"]:
    weighted = (design * weights[:, None]).reshape(-1, 8)
    normal = weighted.T @ design.reshape(-1, 8)
    # a trace of regularisation: weights may leave too few points for eight parameters
    normal[np.diag_indices(8)] += 1e-6 * normal.trace()
    return np.linalg.solve(normal, weighted.T @ motion.reshape(-1))


@functools.lru_cache(maxsize=8)
def _design(height: int, width: int) -> Float32[np.ndarray, "2 h w 8"]:
    """Rows of the linear model for u and for v, in coordinates from -1 to 1."""
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    one, zero = np.ones_like(x), np.zeros_like(x)
    u = np.stack([one, x, y, zero, zero, zero, x * x, x * y], -1)
    v = np.stack([zero, zero, zero, one, x, y, x * y, y * y], -1)
    return np.stack([u, v]).astype(np.float32)
