"""Pictures as tensors, planar: resizing, grey, Lab and blurs as OpenCV has them; and how many frames at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn import functional as F

# of intermediate values at a time: what fits a CPU's cache, and what keeps a GPU busy
BUDGET = {"cpu": 16 << 20, "cuda": 512 << 20}
# of red, green, blue in grey, in 1 / 2^15
GREY = (9798, 19235, 3735)
# linear sRGB to CIE XYZ, each divided by that of white (D65)
XYZ = (
    (0.412453 / 0.950456, 0.357580 / 0.950456, 0.180423 / 0.950456),
    (0.212671, 0.715160, 0.072169),
    (0.019334 / 1.088754, 0.119193 / 1.088754, 0.950227 / 1.088754),
)


def chunks(number: int, bytes_each: int, device: torch.device) -> Iterator[slice]:
    """Consecutive slices of `number` things whose intermediate values are `bytes_each` large, so that memory stays bounded."""
    step = max(1, BUDGET[device.type] // max(1, bytes_each))
    for start in range(0, number, step):
        yield slice(start, min(number, start + step))


def resized(pictures: UInt8[Tensor, "t c h w"], size: tuple[int, int]) -> UInt8[Tensor, "t c y x"]:
    """Pictures of `size` (height, width): a side that shrinks is area-averaged, one that grows is interpolated; rounded."""
    height, width = pictures.shape[2:]
    if (height, width) == size:
        return pictures
    rows = axis_weights(height, size[0], pictures.device)
    columns = axis_weights(width, size[1], pictures.device).T
    out = pictures.new_empty(*pictures.shape[:2], *size)
    for part in chunks(len(pictures), 8 * pictures[0].numel(), pictures.device):
        out[part] = (rows @ pictures[part].float() @ columns).round_().clamp_(0, 255).to(torch.uint8)
    return out


def axis_weights(old: int, new: int, device: torch.device) -> Float[Tensor, "new old"]:
    """What each new pixel takes of each old one along one side: by shared area where it shrinks, else bilinear."""
    places = torch.arange(new, dtype=torch.float64)[:, None]
    pixels = torch.arange(old, dtype=torch.float64)
    scale = old / new
    if new < old:
        shared = torch.minimum((places + 1) * scale, pixels + 1) - torch.maximum(places * scale, pixels)
        weights = shared.clamp_min(0) / scale
    else:
        centres = ((places + 0.5) * scale - 0.5).clamp(0, old - 1)
        weights = (1 - (centres - pixels).abs()).clamp_min(0)
    return weights.float().to(device)


def interpolated(pictures: Float[Tensor, "t h w"], size: tuple[int, int]) -> Float[Tensor, "t y x"]:
    """Bilinear, at `size` (height, width); what shrinks is not averaged."""
    return F.interpolate(pictures[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def grey(pictures: UInt8[Tensor, "t 3 h w"]) -> UInt8[Tensor, "t h w"]:
    """RGB as grey values, exactly as OpenCV rounds them."""
    out = pictures.new_empty(len(pictures), *pictures.shape[2:])
    for part in chunks(len(pictures), 4 * 4 * out[0].numel(), pictures.device):
        red, green, blue = (pictures[part, channel].int() * GREY[channel] for channel in range(3))
        out[part] = ((red + green + blue + (1 << 14)) >> 15).to(torch.uint8)
    return out


def lab(pictures: UInt8[Tensor, "t 3 h w"], blur: float = 0.0) -> Float[Tensor, "t 3 h w"]:
    """RGB as CIE Lab: L in [0, 100], a and b in [-128, 127]; blurred before by a Gaussian of sigma `blur` pixels."""
    if blur > 0:
        linear = _linear(gaussian(pictures.float() / 255, blur))
    else:
        table = _linear(torch.arange(256, device=pictures.device) / 255)
        linear = table[pictures.int()]
    xyz = torch.einsum("dc,tchw->tdhw", torch.tensor(XYZ, device=pictures.device), linear)
    f = torch.where(xyz > 0.008856, xyz.clamp_min(0.008856) ** (1 / 3), xyz * 7.787 + 16 / 116)
    return torch.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)


def _linear(colours: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    return torch.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)


def gaussian(pictures: Float[Tensor, "t c h w"], sigma: float) -> Float[Tensor, "t c h w"]:
    """Blurred by a Gaussian cut off at four sigma; the border mirrors the picture."""
    radius = round(8 * sigma + 1) // 2
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).float().to(pictures.device)
    planes = pictures.flatten(0, 1)[:, None]
    for dim, shape in ((2, (1, 1, -1, 1)), (3, (1, 1, 1, -1))):
        padded = planes.index_select(dim, mirrored(planes.shape[dim], radius, radius, planes.device))
        planes = F.conv2d(padded, kernel.view(shape))
    return planes.view_as(pictures)


def box_mean(pictures: Float[Tensor, "t h w"], side: int) -> Float[Tensor, "t h w"]:
    """Mean over squares of `side` pixels; the border mirrors the picture. An even square reaches further up and left."""
    planes = pictures[:, None]
    before = side // 2
    for dim, window in ((2, (side, 1)), (3, (1, side))):
        index = mirrored(planes.shape[dim], before, side - 1 - before, planes.device)
        planes = F.avg_pool2d(planes.index_select(dim, index), window, stride=1)
    return planes[:, 0]


def mirrored(size: int, before: int, after: int, device: torch.device) -> Int64[Tensor, "n"]:
    """Indices 0 .. size - 1 with a mirrored border (cba|abc|cba), however wide it is."""
    index = torch.arange(-before, size + after, device=device) % (2 * size)
    return torch.where(index < size, index, 2 * size - 1 - index)
