"""The 176 numbers that the graph compares, of all regions of a shot (uNLC's published code, region descriptor). See `..descriptors`."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int32, Int64, UInt8
from torch import Tensor

from data_tools.unlc.descriptors import BINS, CELL, NUM_FEATURES, ORIENTATIONS, PATCH
from data_tools.unlc.tensors.pictures import chunks, grey, lab


def region_descriptors(
    frames: UInt8[Tensor, "t 3 h w"], labels: Int32[Tensor, "t h w"], number: int
) -> Float[Tensor, "t k 176"]:
    """HOG (54, L1-normalised), histograms of R, G, B, L, a, b (20 bins each, each sums to 1), top / h and left / w of the patch.

    Args:
        frames: at least 15 pixels a side.
        labels: regions 0 .. number - 1; the numbers of one that is not present in a frame say nothing.
    """
    height, width = frames.shape[2:]
    out = torch.empty(len(frames), number, NUM_FEATURES, device=frames.device)
    inside = torch.arange(PATCH, device=frames.device)
    size = torch.tensor([height, width], device=frames.device)
    for part in chunks(len(frames), 96 * (number * PATCH**2 + height * width), frames.device):
        corners = patch_corners(labels[part], number)
        # of each pixel of each patch: which of its frame, t k 225
        rows, columns = corners[..., :1] + inside, corners[..., 1:] + inside
        pixels = (rows[..., None] * width + columns[..., None, :]).flatten(1)
        lightness = grey(frames[part]).flatten(1).gather(1, pixels).float() / 255
        out[part, :, :54] = _orientations(lightness.view(-1, PATCH, PATCH)).view(-1, number, 54)
        bins = colour_bins(frames[part]).flatten(2).gather(2, pixels[:, None].expand(-1, 6, -1))
        out[part, :, 54:174] = _colours(bins.view(-1, 6, number, PATCH**2))
        out[part, :, 174:] = corners / size
    return out


def patch_corners(labels: Int32[Tensor, "t h w"], number: int) -> Int64[Tensor, "t k 2"]:
    """(top, left) of each region's patch around the centre of its bounding box, shifted to lie inside the frame."""
    regions = labels.flatten(1).long()
    corners = []
    for dim, size in ((1, labels.shape[1]), (2, labels.shape[2])):
        places = torch.arange(size, device=labels.device)
        places = (places[:, None] if dim == 1 else places).expand(labels.shape[1:]).flatten().expand_as(regions)
        first = torch.full((len(labels), number), size - 1, device=labels.device)
        first = first.scatter_reduce(1, regions, places, "amin")
        last = torch.zeros_like(first).scatter_reduce(1, regions, places, "amax")
        corners.append(((first + last) // 2 - PATCH // 2).clamp(0, size - PATCH))
    return torch.stack(corners, -1)


def colour_bins(frames: UInt8[Tensor, "t 3 h w"]) -> UInt8[Tensor, "t 6 h w"]:
    """Histogram bin (0..19) of R, G, B (range 0..255), L (0..100), a and b (-128..127)."""
    lower = torch.tensor([0.0, -128, -128], device=frames.device)[:, None, None]
    width = torch.tensor([100.0, 255, 255], device=frames.device)[:, None, None] / BINS
    rgb = torch.div(frames.int() * BINS, 255, rounding_mode="floor")
    bins = torch.cat([rgb, ((lab(frames) - lower).clamp_min(0) / width).int()], 1)
    return bins.clamp_max_(BINS - 1).to(torch.uint8)


def _colours(bins: UInt8[Tensor, "t 6 k p"]) -> Float[Tensor, "t k 120"]:
    frames, channels, number, _ = bins.shape
    first = torch.arange(frames * channels * number, device=bins.device).view(frames, channels, number, 1) * BINS
    counts = torch.bincount((bins + first).flatten(), minlength=first.numel() * BINS)
    return (counts.view(frames, channels, number, BINS) / PATCH**2).transpose(1, 2).flatten(2)


def _orientations(patches: Float[Tensor, "n 15 15"]) -> Float[Tensor, "n 54"]:
    """HOG with hard bins and one L1-normalised block of 3 x 3 cells, as scikit-image's `block_norm="L1"`."""
    down, right = torch.zeros_like(patches), torch.zeros_like(patches)
    down[:, 1:-1] = patches[:, 2:] - patches[:, :-2]
    right[:, :, 1:-1] = patches[:, :, 2:] - patches[:, :, :-2]
    magnitude = torch.hypot(right, down)
    angle = torch.rad2deg(torch.atan2(down, right)) % 180
    orientation = (angle / (180 / ORIENTATIONS)).int() % ORIENTATIONS
    cells = math.ceil(PATCH / CELL)
    means = []
    for one in range(ORIENTATIONS):  # a scatter of floats would add them in another order on every run of a GPU
        votes = torch.where(orientation == one, magnitude, 0).view(-1, cells, CELL, cells, CELL)
        means.append(votes.mean((2, 4)).flatten(1))
    histogram = torch.stack(means, -1).flatten(1)
    return histogram / (histogram.sum(1, keepdim=True) + 1e-5)
