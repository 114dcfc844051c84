"""The dominant motion of many flow fields at once, and how far each pixel deviates from it (Faktor & Irani 2014, section 3.1)."""

from __future__ import annotations

import functools
import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from data_tools.unlc.config import Motion

FlowFields = Float[Tensor, "n h w 2"]
Deviations = tuple[Float[Tensor, "n h w"], Bool[Tensor, "n"]]


def deviation(flow: FlowFields, settings: Motion) -> Deviations:
    """Unsmoothed saliency of each pixel, >= 0, and which fields have a dominant motion; the others' saliency says nothing."""
    if settings.dominant == "histogram":
        return histogram_deviation(flow, settings)
    return plane_deviation(flow, settings)


def histogram_deviation(flow: FlowFields, settings: Motion) -> Deviations:
    """The paper's test: a static camera, else one direction, else nothing. See `data_tools.unlc.dominant`."""
    magnitude = flow.norm(dim=-1)
    angle = torch.atan2(flow[..., 1], flow[..., 0]) % (2 * math.pi)
    static = median(magnitude.flatten(1)) < settings.static
    width = 2 * math.pi / settings.bins
    bins = (angle / width).long().clamp_max(settings.bins - 1)
    # a loop over the bins: a scatter of floats would add them in another order on every run of a GPU
    histogram = torch.stack(
        [torch.where(bins == one, magnitude, 0).sum((1, 2)) for one in range(settings.bins)], 1
    )  # n, bins
    most, best = histogram.max(1)
    difference = (angle - ((best + 0.5) * width)[:, None, None]).abs()
    turned = torch.minimum(difference, 2 * math.pi - difference) ** 2
    found = static | (most > settings.translating * histogram.sum(1))
    return torch.where(static[:, None, None], magnitude**2, turned), found


def plane_deviation(flow: FlowFields, settings: Motion) -> Deviations:
    """Distance to the motion of a rigid plane under a moving camera, to the `power`; a robust fit, so that the object does not count."""
    squared = (flow - fit_plane(flow)).square().sum(-1)
    share = (squared < settings.inlier**2).float().mean((1, 2))
    return squared if settings.power == 2 else squared ** (settings.power / 2), share >= settings.min_inliers


def fit_plane(flow: FlowFields, num_iterations: int = 12, grid: int = 32) -> FlowFields:
    """The 8-parameter motion of a plane that most pixels follow, of each field by itself.

    Bergen et al. 1992, eq. for planar surface flow, by iteratively reweighted least squares with Geman-McClure weights, whose scale falls
    from the field's own spread to half a pixel; on grid x grid pixels. See `data_tools.unlc.dominant`.
    """
    number, height, width = flow.shape[:3]
    rows, columns = (torch.linspace(0, side - 1, min(side, grid)).round().long() for side in (height, width))
    design = _design(height, width, flow.device)
    seen = design[:, rows[:, None], columns].reshape(2, -1, 8)
    motion = flow[:, rows[:, None].to(flow.device), columns.to(flow.device)].reshape(number, -1, 2)
    # of one pixel: what it adds to the normal equations, which are then products with the weights
    products = torch.einsum("cpi,cpj->pij", seen, seen).flatten(1)
    sides = torch.einsum("cpi,npc->npi", seen, motion)
    parameters = flow.new_zeros(number, 8)
    parameters[:, [0, 3]] = median(motion.mT)
    scale = flow.new_full((number,), math.inf)
    for _ in range(num_iterations):
        error = (motion - torch.einsum("cpi,ni->npc", seen, parameters)).square().sum(-1)
        scale = torch.minimum(scale * 0.7, 2 * median(error).sqrt()).clamp_min(0.5)
        weights = 1 / (1 + error / scale[:, None] ** 2).square()
        normal = (weights @ products).view(-1, 8, 8)
        # a trace of regularisation: weights may leave too few points for eight parameters
        trace = normal.diagonal(dim1=1, dim2=2).sum(1)
        normal = normal + 1e-6 * trace[:, None, None] * torch.eye(8, device=flow.device)
        parameters = torch.linalg.solve(normal, torch.einsum("np,npi->ni", weights, sides))
    return torch.einsum("chwi,ni->nhwc", design, parameters)


def median(values: Float[Tensor, "*rows n"]) -> Float[Tensor, "*rows"]:
    """Of the last dimension; of an even number the mean of the middle two, as NumPy's (torch takes the lower)."""
    ordered = values.sort(-1).values
    number = values.shape[-1]
    return (ordered[..., (number - 1) // 2] + ordered[..., number // 2]) / 2


@functools.lru_cache(maxsize=8)
def _design(height: int, width: int, device: torch.device) -> Float[Tensor, "2 h w 8"]:
    """Rows of the linear model for u and for v, in coordinates from -1 to 1."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    u = torch.stack([one, x, y, zero, zero, zero, x * x, x * y], -1)
    v = torch.stack([zero, zero, zero, one, x, y, x * y, y * y], -1)
    return torch.stack([u, v]).to(device)
