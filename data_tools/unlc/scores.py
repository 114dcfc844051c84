"""From votes to soft scores per pixel: small blobs, edges, and the trimap (Pathak et al. 2017, section 5.1)."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float32, Int8, UInt8

POSITIVE = 0.7  # a score above it is foreground
NEGATIVE = 0.4  # a score below it is background; between them: don't care
JUST_BELOW = 1e-5


def trimap(scores: Float32[np.ndarray, "*shape"]) -> Int8[np.ndarray, "*shape"]:
    """1 where the score is above 0.7 (foreground), 0 below 0.4 (background), -1 between (don't care)."""
    out = np.full(scores.shape, -1, dtype=np.int8)
    out[scores > POSITIVE] = 1
    out[scores < NEGATIVE] = 0
    return out


def demote_small_blobs(
    score: Float32[np.ndarray, "h w"], threshold: float, min_share: float
) -> Float32[np.ndarray, "h w"]:
    """Of the blobs above `threshold` (8-connected), those smaller than `min_share` of the largest fall just below it.

    They become "don't care", not background: the step doubts them, it does not deny them.
    """
    _, labels, stats, _ = cv2.connectedComponentsWithStats((score > threshold).astype(np.uint8), connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    if len(areas) < 2:
        return score
    small = np.append(False, areas < min_share * areas.max())
    return np.where(small[labels], np.float32(threshold - JUST_BELOW), score)


def guided_filter(
    score: Float32[np.ndarray, "h w"], grey: UInt8[np.ndarray, "h w"], radius: int, epsilon: float
) -> Float32[np.ndarray, "h w"]:
    """Scores that follow the edges of the grey frame (He et al. 2010, eq. 5, 6 and 8), clipped to [0, 1].

    Args:
        radius: of the windows in which the scores are a linear function of the frame, pixels.
        epsilon: variance of the frame (grey values in [0, 1]) below which a window counts as flat.
    """
    guide = grey.astype(np.float32) / 255

    def mean(picture: np.ndarray) -> np.ndarray:
        return cv2.blur(picture, (2 * radius + 1, 2 * radius + 1), borderType=cv2.BORDER_REFLECT)

    mean_guide, mean_score = mean(guide), mean(score)
    variance = mean(guide * guide) - mean_guide**2
    slope = (mean(guide * score) - mean_guide * mean_score) / (np.maximum(variance, 0) + epsilon)
    offset = mean_score - slope * mean_guide
    return np.clip(mean(slope) * guide + mean(offset), 0, 1)
