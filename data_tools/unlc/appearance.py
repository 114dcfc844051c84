"""Appearance saliency where motion says nothing: how unlike the frame's edge a region is. Plays the part of manifold ranking in the paper.

Own and simple on purpose (the original's is patented, and its sign was wrong): a region's contrast is its mean Lab distance to the nearest
fifth of the regions that touch the frame's edge. An object differs from every part of the background, ground only from some.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from data_tools.unlc.config import Superpixels
from data_tools.unlc.superpixels import lab_frame, region_means, superpixels

NEAREST = 0.2  # share of the edge's regions that a region is compared with: the background it is most like
VISIBLE = 10.0  # Lab units: a frame whose largest contrast is below it is not stretched to 1
_SLIC = Superpixels(number=200, compactness=10.0, blur=1.0, iterations=5, connected=True, shrink=1)


def appearance_saliency(frames: UInt8[np.ndarray, "t h w 3"], size: tuple[int, int]) -> Float32[np.ndarray, "t y x"]:
    """Saliency in [0, 1] of each frame, computed at `size` (height, width): high inside what is unlike the frame's edge."""
    height, width = size
    out = np.empty((len(frames), height, width), dtype=np.float32)
    for i, frame in enumerate(frames):
        small = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
        out[i] = _edge_contrast(small)
    return out


def _edge_contrast(frame: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w"]:
    labels = superpixels(frame, _SLIC)
    number = int(labels.max()) + 1
    lab = lab_frame(frame)
    colours = np.stack([region_means(labels, lab[..., channel], number) for channel in range(3)], 1)
    edge = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    distances = np.linalg.norm(colours[:, None] - colours[edge], axis=-1)  # n, edge
    count = max(1, round(NEAREST * len(edge)))
    contrast = np.partition(distances, count - 1, axis=1)[:, :count].mean(1)
    return (contrast / max(contrast.max(), VISIBLE)).astype(np.float32)[labels]
