"""The base networks, built from their tables (architectures.py): an image network up to the embedding, for single frames and video."""

from __future__ import annotations

import math
from collections import OrderedDict

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from fbm_dist.objectives.coherency.architectures import (
    ARCHITECTURES,
    Convolution,
    Inception,
    Layer,
    Linear,
    Pooling,
    ReLU,
    ResponseNorm,
    scaled,
    sides,
)
from fbm_dist.objectives.coherency.config import CoherencyConfig
from fbm_dist.objectives.objective import Encoder

MEAN = (
    103.939,
    116.779,
    123.68,
)  # of blue, green and red in [0, 255]; the authors' code has 128.68 for red, a typing error
GREY = 70.0  # about the deviation of a pixel from it, in grey levels
RGB = 3


class InceptionBlock(nn.Module):
    """Four paths over the same map, joined on channels (Szegedy et al., 2015, Figure 2b)."""

    def __init__(self, channels: int, layer: Inception, width: float, original: bool) -> None:
        super().__init__()
        self.width, self.original = width, original
        self.one = self._path(channels, (layer.one, 1))
        self.three = self._path(channels, (layer.three_reduced, 1), (layer.three, 3))
        self.five = self._path(channels, (layer.five_reduced, 1), (layer.five, 5))
        self.pooled = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), *self._path(channels, (layer.pooled, 1)))
        self.out = sum(scaled(n, width) for n in (layer.one, layer.three, layer.five, layer.pooled))

    def _path(self, channels: int, *layers: tuple[int, int]) -> nn.Sequential:
        path: list[nn.Module] = []
        for out, kernel in layers:
            table = Convolution(out, kernel, padding=kernel // 2, std=None, bias=0.2)
            path.append(_convolution(channels, table, self.width, self.original))
            channels = scaled(out, self.width)
        return nn.Sequential(*path)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        """(b, c, h, w) -> (b, d, h, w)."""
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pooled(x)], dim=1)


class CoherencyEncoder(Encoder):
    """A base network: frames -> fc6 (and fc7), before and after their ReLU. The last one is the embedding."""

    mean: Tensor

    def __init__(self, config: CoherencyConfig) -> None:
        super().__init__()
        self.size = config.size
        table = ARCHITECTURES[config.network]
        original = config.initialization == "original"
        channels, side = RGB, list(sides(config.network, config.size).values())[-1]
        trunk: OrderedDict[str, nn.Module] = OrderedDict()
        for name, layer in table.trunk.items():
            trunk[name], channels = _build(layer, channels, config.width, original)
        self.trunk = nn.Sequential(trunk)
        self.linear = nn.ModuleDict()
        units = channels * side * side
        for name, linear in table.linear.items():
            out = config.units if linear.out is None else scaled(linear.out, config.width)
            self.linear[name] = _linear(units, out, linear, original)
            units = out
        self.register_buffer("mean", torch.tensor(MEAN).view(RGB, 1, 1), persistent=False)
        self.scale = (
            1.0 if original else 1 / GREY
        )  # He's initialisation hands the input's variance on: it is to be about 1

    def layers(self, frames: Float[Tensor, "n c h w"]) -> dict[str, Float[Tensor, "n _"]]:
        """Frames (n, 3, size, size) in [-1, 1], RGB -> fc6, fc6_pre (before ReLU), fc7 and fc7_pre where there is one.

        Raises:
            ValueError: the frames have another shape.
        """
        expected = (RGB, self.size, self.size)
        if tuple(frames.shape[1:]) != expected:
            raise ValueError(
                f"this network takes frames of {expected}, got {tuple(frames.shape[1:])}: "
                f"set data.clip.size={self.size}, or objective.size"
            )
        pixels = ((frames.flip(1) + 1) * 127.5 - self.mean) * self.scale
        x = self.trunk(pixels).flatten(1)
        found: dict[str, Tensor] = {}
        for name, linear in self.linear.items():
            before = linear(x)
            x = F.relu(before)
            found |= {name: x, f"{name}_pre": before}
        return found

    def embed(self, frames: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """The embedding of each frame before it is normalised: the last layer after its ReLU, >= 0."""
        return self.layers(frames)[list(self.linear)[-1]]

    def forward(self, video: Float[Tensor, "b c t h w"]) -> dict[str, Float[Tensor, "b _"]]:
        """Video (b, 3, t, size, size) in [-1, 1], any t -> {"fc6", "fc6_pre", "fc7", "fc7_pre"}: means over the frames, not normalised.

        Raises:
            ValueError: the video has another shape.
        """
        if video.ndim != 5:
            raise ValueError(
                f"this network takes video of (b, 3, t, {self.size}, {self.size}), got {tuple(video.shape)}"
            )
        found = self.layers(video.transpose(1, 2).flatten(0, 1))
        return {name: each.unflatten(0, (video.shape[0], -1)).mean(dim=1) for name, each in found.items()}


def _build(layer: Layer, channels: int, width: float, original: bool) -> tuple[nn.Module, int]:
    """A layer of the table, and the channels that leave it."""
    if isinstance(layer, Convolution):
        return _convolution(channels, layer, width, original), scaled(layer.out, width)
    if isinstance(layer, Inception):
        block = InceptionBlock(channels, layer, width, original)
        return block, block.out
    if isinstance(layer, Pooling):
        kind = nn.MaxPool2d if layer.kind == "max" else nn.AvgPool2d
        return kind(layer.kernel, layer.stride, ceil_mode=True), channels
    if isinstance(layer, ResponseNorm):
        return nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0), channels
    if isinstance(layer, ReLU):
        return nn.ReLU(inplace=True), channels
    return nn.AdaptiveAvgPool2d(1), channels


def _convolution(channels: int, layer: Convolution, width: float, original: bool) -> nn.Sequential:
    convolution = nn.Conv2d(
        channels,
        scaled(layer.out, width),
        layer.kernel,
        stride=layer.stride,
        padding=layer.padding,
        groups=layer.groups,
    )
    _initialize(convolution, layer, original)
    layers: OrderedDict[str, nn.Module] = OrderedDict(convolution=convolution)
    if layer.relu:
        layers["relu"] = nn.ReLU(inplace=True)
    return nn.Sequential(layers)


def _linear(units: int, out: int, layer: Linear, original: bool) -> nn.Linear:
    linear = nn.Linear(units, out)
    _initialize(linear, layer, original)
    return linear


def _initialize(module: nn.Conv2d | nn.Linear, layer: Convolution | Linear, original: bool) -> None:
    """The original's values; or He's, whose biases are 0."""
    assert module.bias is not None
    if not original:
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        nn.init.zeros_(module.bias)
        return
    if layer.std is None:  # Caffe's xavier looks at what comes in alone
        bound = math.sqrt(3.0 / module.weight[0].numel())
        nn.init.uniform_(module.weight, -bound, bound)
    else:
        nn.init.normal_(module.weight, std=layer.std)
    nn.init.constant_(module.bias, layer.bias)
