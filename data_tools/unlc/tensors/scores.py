"""From votes to soft scores per pixel, all frames at once: small blobs and edges (Pathak et al. 2017, section 5.1)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from data_tools.unlc.scores import JUST_BELOW
from data_tools.unlc.tensors.pictures import box_mean


def demote_small_blobs(scores: Float[Tensor, "t h w"], threshold: float, min_share: float) -> Float[Tensor, "t h w"]:
    """Of each frame's blobs above `threshold` (8-connected), those smaller than `min_share` of its largest fall just below it."""
    above = scores > threshold
    labels = blobs(above).flatten(1)
    areas = torch.zeros(len(labels), labels.shape[1] + 1, dtype=torch.int32, device=scores.device)
    areas.scatter_add_(1, labels, above.flatten(1).int())
    small = areas < min_share * areas.amax(1, keepdim=True)
    demoted = above & small.gather(1, labels).view_as(above)
    return torch.where(demoted, threshold - JUST_BELOW, scores)


def blobs(inside: Bool[Tensor, "t h w"]) -> Int64[Tensor, "t h w"]:
    """A number for each 8-connected blob of each frame: 1 + the last of its pixels, row by row; 0 outside.

    Every pixel points at the last pixel that it knows of in its blob. In each round it hears of a later one from its neighbours, passes it
    on to the pixel that it pointed at, and follows the pointers: a few rounds also for long and winding blobs (Shiloach & Vishkin 1982).
    """
    number, height, width = inside.shape
    none = torch.zeros(number, 1, dtype=torch.int64, device=inside.device)  # where those outside point
    own = torch.arange(1, height * width + 1, device=inside.device).view(height, width)
    labels = torch.where(inside, own, 0)
    while True:
        heard = torch.where(inside, _largest_around(labels), 0).flatten(1)
        known = torch.cat([none, labels.flatten(1)], 1)
        known = known.scatter_reduce(1, labels.flatten(1), heard, "amax")
        known[:, 0] = 0
        for _ in range(2):
            known = known.gather(1, known)
        following = known[:, 1:].view_as(labels)
        if torch.equal(following, labels):
            return labels
        labels = following


def _largest_around(labels: Int64[Tensor, "t h w"]) -> Int64[Tensor, "t h w"]:
    """Largest in each square of 3 x 3. (Max pooling takes no whole numbers on a GPU.)"""
    for dim in (1, 2):
        size = labels.shape[dim]
        out = labels.clone()
        first, rest = out.narrow(dim, 0, size - 1), out.narrow(dim, 1, size - 1)
        torch.maximum(first, labels.narrow(dim, 1, size - 1), out=first)
        torch.maximum(rest, labels.narrow(dim, 0, size - 1), out=rest)
        labels = out
    return labels


def guided_filter(
    scores: Float[Tensor, "t h w"], grey: UInt8[Tensor, "t h w"], radius: int, epsilon: float
) -> Float[Tensor, "t h w"]:
    """Scores that follow the edges of the grey frames (He et al. 2010, eq. 5, 6 and 8), clipped to [0, 1].

    Args:
        radius: of the windows in which the scores are a linear function of the frame, pixels.
        epsilon: variance of the frame (grey values in [0, 1]) below which a window counts as flat.
    """
    guide, side = grey.float() / 255, 2 * radius + 1
    mean_guide, mean_score = box_mean(guide, side), box_mean(scores, side)
    variance = box_mean(guide * guide, side) - mean_guide**2
    slope = (box_mean(guide * scores, side) - mean_guide * mean_score) / (variance.clamp_min(0) + epsilon)
    offset = mean_score - slope * mean_guide
    return (box_mean(slope, side) * guide + box_mean(offset, side)).clamp(0, 1)
