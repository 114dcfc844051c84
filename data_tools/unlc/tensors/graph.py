"""The graph of the vote as tensors: of each region its nearest neighbours and their weights (Faktor & Irani 2014, section 3.2)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from data_tools.unlc.config import Graph
from data_tools.unlc.tensors.pictures import chunks


class Neighbours(NamedTuple):
    """Row-stochastic: region r takes `weights[r]` of the votes of `regions[r]`, numbered frame by frame over the shot."""

    regions: Int64[Tensor, "t k m"]
    weights: Float[Tensor, "t k m"]


def consensus_graph(descriptors: Float[Tensor, "t k d"], present: Bool[Tensor, "t k"], settings: Graph) -> Neighbours:
    """The `neighbours` nearest of each region (Euclidean, itself included) in the window around its frame, weighted exp(-d^2 / bandwidth).

    Exact, by matrix products. Neighbours beyond those that a window has weigh nothing, and so do all of a region that is not present.
    """
    number, regions = descriptors.shape[:2]
    reach = settings.window // settings.stride
    offsets = torch.arange(-reach, reach + 1, device=descriptors.device) * settings.stride
    count = min(settings.neighbours, len(offsets) * regions)
    found = descriptors.new_empty((number, regions, count), dtype=torch.int64)
    weights = descriptors.new_empty(number, regions, count)
    for part in chunks(number, 12 * len(offsets) * regions**2, descriptors.device):
        own = torch.arange(part.start, part.stop, device=descriptors.device)
        found[part], weights[part] = _rows(own, offsets, descriptors, present, settings, count)
    return Neighbours(found, weights)


def _rows(
    own: Int64[Tensor, "b"],
    offsets: Int64[Tensor, "f"],
    descriptors: Float[Tensor, "t k d"],
    present: Bool[Tensor, "t k"],
    settings: Graph,
    count: int,
) -> tuple[Int64[Tensor, "b k m"], Float[Tensor, "b k m"]]:
    """The rows of the frames `own`."""
    number, regions = descriptors.shape[:2]
    frames = own[:, None] + offsets  # b, f
    usable = present[frames.clamp(0, number - 1)] & ((frames >= 0) & (frames < number))[..., None]
    frames = frames.clamp(0, number - 1)
    others = descriptors[frames].flatten(1, 2)  # b, f k, d
    mine = descriptors[own]
    # |a - b|^2 = |a|^2 + |b|^2 - 2 ab; rounding may leave it slightly below 0
    squares = others.square().sum(-1)[:, None] + mine.square().sum(-1)[..., None]
    distances = torch.baddbmm(squares, mine, others.mT, alpha=-2).clamp_min_(0)
    distances.masked_fill_(~usable.flatten(1)[:, None], torch.inf)
    rows = torch.arange(regions, device=own.device)
    distances[:, rows, rows + len(offsets) // 2 * regions] = -1  # rounding must not push a region out of its own
    nearest, places = distances.topk(count, largest=False, sorted=False)
    chosen = torch.div(places, regions, rounding_mode="floor")
    found = frames.gather(1, chosen.flatten(1)).view_as(places) * regions + places % regions
    weights = torch.exp(nearest.clamp_min(0) / -settings.bandwidth)
    weights = weights / weights.sum(-1, keepdim=True) * present[own][..., None]
    return found, weights
