"""SLIC (Achanta et al. 2012) on all frames of a shot at once, and means over its regions.

Every frame has the same grid of k centres, so that regions are numbers 0 .. k - 1; one that no pixel chose is not present. A pixel
chooses among the centres of its own cell of the grid and of the cells around it. Unlike in scikit-image, regions need not be connected:
the step is one region at a time, and pixels that lie apart are few (README.md says what it costs).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int32, Int64, UInt8
from skimage.util import regular_grid
from torch import Tensor

from data_tools.unlc.config import Superpixels
from data_tools.unlc.superpixels import shrinking
from data_tools.unlc.tensors.pictures import chunks, lab, resized

REACH = 1  # cells to either side
FIXED = 1 << 20  # sums are of whole multiples of 1 / 2^20: in any order the same, also on a GPU


def superpixels(frames: UInt8[Tensor, "t 3 h w"], settings: Superpixels) -> tuple[Int32[Tensor, "t h w"], int]:
    """Region of each pixel, and k: the regions of a frame are among 0 .. k - 1."""
    height, width = frames.shape[2:]
    factor = shrinking(height, width, settings)
    if factor > 1:
        small = settings.model_copy(update={"shrink": 1, "blur": settings.blur / factor})
        found, number = superpixels(resized(frames, (height // factor, width // factor)), small)
        rows, columns = (
            (torch.arange(size, device=frames.device) * (size // factor)).div(size, rounding_mode="floor")
            for size in (height, width)
        )  # nearest, as OpenCV has it
        return found[:, rows[:, None], columns], number
    grid = _Grid(height, width, settings, frames.device)
    labels = torch.empty(len(frames), height, width, dtype=torch.int32, device=frames.device)
    for part in chunks(len(frames), 128 * height * width, frames.device):
        labels[part] = _slic(lab(frames[part], settings.blur), grid, settings)
    return labels, grid.number


def present(labels: Int32[Tensor, "t h w"], number: int) -> Bool[Tensor, "t k"]:
    """Which of the `number` regions each frame has."""
    found = torch.zeros(len(labels), number, dtype=torch.bool, device=labels.device)
    return found.scatter_(1, labels.flatten(1).long(), True)


def region_means(labels: Int32[Tensor, "t h w"], pictures: Float[Tensor, "t h w"], number: int) -> Float[Tensor, "t k"]:
    """Mean of `pictures` over each region of each frame; 0 where a region is not present."""
    out = torch.empty(len(labels), number, device=labels.device)
    for part in chunks(len(labels), 32 * labels[0].numel(), labels.device):
        values = (pictures[part].flatten(1)[:, None] * FIXED).round_().long()
        counts, sums = _sums(labels[part].flatten(1).long(), values, number)
        out[part] = (sums[:, 0].double() / (counts.clamp_min(1) * FIXED)).float()
    return out


class _Side:
    """The grid along one side of the frame: `number` centres `step` pixels apart, and cells of `step` pixels that cover the side."""

    def __init__(self, size: int, centres: slice, device: torch.device) -> None:
        self.step = centres.step or 1
        first = centres.start or 0
        self.number = len(range(first, size, self.step))
        before = self.step // 2 - first  # pixels that the first cell lacks
        self.cells = -(-(size + before) // self.step)  # the last may have no centre of its own
        self.pixels = torch.arange(self.cells * self.step, device=device) - before
        self.inside = (self.pixels >= 0) & (self.pixels < size)
        self.pixels.clamp_(0, size - 1)
        self.starts = torch.arange(first, size, self.step, device=device)
        around = torch.arange(-REACH, REACH + 1, device=device)
        cells = torch.arange(self.cells, device=device)[:, None]
        self.near = (cells + around).clamp(0, self.number - 1)  # at the edge a centre comes twice: no harm


class _Grid:
    """The frame in cells, each with the centres that its pixels choose among."""

    def __init__(self, height: int, width: int, settings: Superpixels, device: torch.device) -> None:
        _, rows, columns = regular_grid((1, height, width), settings.number)  # scikit-image's
        self.y, self.x = _Side(height, rows, device), _Side(width, columns, device)
        self.number = self.y.number * self.x.number
        near = self.y.near[:, None, :, None] * self.x.number + self.x.near[:, None, :]
        self.near = near.flatten(2).flatten(0, 1)  # cells, 9
        pixel = self.y.pixels[:, None] * width + self.x.pixels
        self.pixel = self._blocks(pixel)  # cells, pixels of a cell: which pixel of the frame
        self.outside = ~self._blocks(self.y.inside[:, None] & self.x.inside)
        starts = self.y.starts[:, None] * width + self.x.starts
        self.starts = starts.flatten()  # which pixel each centre starts at
        places = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
        self.places = torch.stack(places).float().flatten(1) / max(self.y.step, self.x.step)  # 2, pixels

    def _blocks(self, values: Tensor) -> Tensor:
        blocks = values.view(self.y.cells, self.y.step, self.x.cells, self.x.step)
        return blocks.transpose(1, 2).flatten(2).flatten(0, 1)


def _slic(colours: Float[Tensor, "t 3 h w"], grid: _Grid, settings: Superpixels) -> Int64[Tensor, "t h w"]:
    number, _, height, width = colours.shape
    # distances in one unit: `compactness` Lab units count as much as a step of the grid
    places = grid.places.expand(number, -1, -1)
    features = torch.cat([colours.flatten(2) / settings.compactness, places], 1)  # t, 5, pixels
    centres = features[..., grid.starts]
    # as in scikit-image: the first round goes by place alone, so that no centre starts with one noisy pixel
    centres[:, :3] = 0
    blocks = features[..., grid.pixel].transpose(1, 2).contiguous()  # t, cells, 5, pixels of a cell
    values = (features * FIXED).round_().long()
    labels = torch.empty(number, height * width, dtype=torch.int64, device=colours.device)
    inside = ~grid.outside
    for _ in range(settings.iterations):
        nearest = _nearest(blocks, centres, grid)
        labels[:, grid.pixel[inside]] = nearest[:, inside]
        centres = _centres(labels, values, centres)
    return labels.view(number, height, width)


def _nearest(
    blocks: Float[Tensor, "t cells c p"], centres: Float[Tensor, "t c k"], grid: _Grid
) -> Int64[Tensor, "t cells p"]:
    """Of each pixel the nearest of the centres around: the least |centre|^2 - 2 centre pixel."""
    near = centres[..., grid.near].permute(0, 2, 3, 1)  # t, cells, 9, 5
    distances = torch.baddbmm(
        near.square().sum(-1).flatten(0, 1)[..., None], near.flatten(0, 1), blocks.flatten(0, 1), alpha=-2
    )
    least = distances[:, 0]
    chosen = torch.zeros_like(least, dtype=torch.int64)
    for one in range(1, distances.shape[1]):  # argmin does the same, ten times slower on a CPU
        chosen = torch.where(distances[:, one] < least, one, chosen)
        least = torch.minimum(distances[:, one], least)
    chosen = chosen.view(len(blocks), *grid.pixel.shape)
    return grid.near.expand(len(blocks), -1, -1).gather(2, chosen)


def _centres(
    labels: Int64[Tensor, "t p"], values: Int64[Tensor, "t c p"], centres: Float[Tensor, "t c k"]
) -> Float[Tensor, "t c k"]:
    """Means over the regions; a region without pixels keeps its centre."""
    counts, sums = _sums(labels, values, centres.shape[2])
    means = (sums.double() / (counts.clamp_min(1) * FIXED)[:, None]).float()
    return torch.where(counts[:, None] > 0, means, centres)


def _sums(
    labels: Int64[Tensor, "t p"], values: Int64[Tensor, "t c p"], number: int
) -> tuple[Int64[Tensor, "t k"], Int64[Tensor, "t c k"]]:
    """Pixels of each region, and sums over it: of whole numbers, hence the same in whatever order a GPU adds them."""
    counts = torch.zeros(len(labels), number, dtype=torch.int64, device=labels.device)
    counts.scatter_add_(1, labels, torch.ones_like(labels))
    sums = torch.zeros(*values.shape[:2], number, dtype=torch.int64, device=labels.device)
    return counts, sums.scatter_add_(2, labels[:, None].expand_as(values), values)
