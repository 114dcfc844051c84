"""Encoders of one frame, frame -> code: DCGAN, VGG-16 and ResNet-18 (Denton and Birodkar, 2017, section 4.1, and the authors' code)."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

SLOPE = 0.2  # of the leaky ReLU below 0
VGG_DEPTHS = (2, 2, 3, 3, 3)  # convolutions of a stage
Maps = tuple[Tensor, ...]  # what a decoder may get by skips, finest first


def scaled(count: int, width: float) -> int:
    """`count` channels at `width`: a multiple of 8, at least 8."""
    return max(8, 8 * round(count * width / 8))


def stage_channels(architecture: str, size: int, width: float) -> tuple[int, ...]:
    """Channels of the stages from fine to coarse: one more of 512 at 128 pixels (ResNet: of 1024, as in the Python code)."""
    last = (1024,) if architecture == "resnet" else (512,)
    counts = (64, 128, 256, 512, *(last if size == 128 else ()))
    return tuple(scaled(count, width) for count in counts)


def initialise_(module: nn.Module) -> None:
    """The authors': convolutions from N(0, 0.02), their biases 0; BatchNorm's scales from N(1, 0.02), offsets 0; the rest as it is."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, 0.0, 0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, 0.02)
            nn.init.zeros_(layer.bias)


def norm_leaky(convolution: nn.Module, channels: int) -> nn.Sequential:
    """A convolution that gives `channels`, BatchNorm, leaky ReLU."""
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.LeakyReLU(SLOPE, inplace=True))


class CodeLayer(nn.Sequential):
    """The coarsest map -> code (b, d): a convolution that covers it, BatchNorm, tanh, and for `unit` a scaling to length 1."""

    def __init__(self, channels: int, dim: int, kernel: int, code: Literal["unit", "tanh"]) -> None:
        super().__init__(nn.Conv2d(channels, dim, kernel), nn.BatchNorm2d(dim), nn.Tanh())
        self.code = code

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:  # type: ignore[override]
        """float32: a unit length in bf16 would be one to two digits."""
        return shaped(super().forward(x).flatten(1).float(), self.code)


def shaped(code: Float[Tensor, "*b d"], kind: Literal["unit", "tanh"]) -> Float[Tensor, "*b d"]:
    """A code in (-1, 1), scaled to length 1 if it is of that kind."""
    return F.normalize(code, dim=-1) if kind == "unit" else code


class FrameEncoder(nn.Module):
    """Stages, each half as large as the one before, then the code. `pools`: a stage keeps the size, and max pooling follows it."""

    def __init__(self, stages: list[nn.Module], code: CodeLayer, pools: bool = False) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.code = code
        self.pools = pools
        initialise_(self)

    def forward(self, frame: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b d"], Maps]:
        """A frame in [0, 1] -> its code, and every stage's map before pooling, finest first."""
        x, maps = frame, []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
            if self.pools:
                x = F.max_pool2d(x, 2)
        return self.code(x), tuple(maps)


def frame_encoder(
    architecture: Literal["dcgan", "vgg", "resnet"], size: int, width: float, dim: int, code: Literal["unit", "tanh"]
) -> FrameEncoder:
    """An encoder of frames of `size` whose code has `dim` numbers, with fresh weights."""
    channels = stage_channels(architecture, size, width)
    if architecture == "resnet":
        return _resnet(channels, dim, code)
    steps = list(pairwise((3, *channels)))
    last = CodeLayer(channels[-1], dim, 4, code)
    if architecture == "dcgan":
        return FrameEncoder([norm_leaky(nn.Conv2d(i, o, 4, 2, 1), o) for i, o in steps], last)
    stages: list[nn.Module] = [
        nn.Sequential(*(norm_leaky(nn.Conv2d(i if n == 0 else o, o, 3, 1, 1), o) for n in range(depth)))
        for (i, o), depth in zip(steps, VGG_DEPTHS, strict=False)
    ]
    return FrameEncoder(stages, last, pools=True)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and the identity beside them (He et al., 2016), a 1x1 convolution where size or channels change."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(out)
        self.second = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(out)
        same = stride == 1 and channels == out
        self.shortcut: nn.Module = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o h2 w2"]:
        """Half the size with stride 2."""
        y = F.relu(self.first_norm(self.first(x)))
        return F.relu(self.second_norm(self.second(y)) + self.shortcut(x))


def _resnet(channels: tuple[int, ...], dim: int, code: Literal["unit", "tanh"]) -> FrameEncoder:
    """ResNet-18 for frames of 64 (4 stages) or 128 (5): a 5x5 stem padded by 3, two blocks a stage, 3x3 at the end."""
    first = channels[0]
    stem = nn.Sequential(
        nn.Conv2d(3, first, 5, 2, 3), nn.BatchNorm2d(first), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
    )
    stages = [
        nn.Sequential(ResidualBlock(i, o, 1 if n == 0 else 2), ResidualBlock(o, o, 1))
        for n, (i, o) in enumerate(pairwise((first, *channels)))
    ]
    stages[0] = nn.Sequential(stem, *stages[0])
    return FrameEncoder(list(stages), CodeLayer(channels[-1], dim, 3, code))


def unit_range(video: Float[Tensor, "*b h w"]) -> Float[Tensor, "*b h w"]:
    """From [-1, 1], as clips are, to the paper's [0, 1]: losses have its scale, and black is what padding is."""
    return (video + 1) / 2


def signed_range(image: Float[Tensor, "*b h w"]) -> Float[Tensor, "*b h w"]:
    """The inverse, in float32."""
    return image.float() * 2 - 1


def as_frames(video: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "n 3 h w"]:
    """Every frame of every clip, clip after clip."""
    return torch.flatten(video.transpose(1, 2), 0, 1)
