"""AlexNet with a linear mask head (Pathak et al., 2017, section 5.2; the released model file): one frame -> logits of a mask."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from fbm_dist.objectives.motion_mask.config import MotionMaskConfig
from fbm_dist.objectives.objective import Encoder

# Of RGB in [0, 1]: what DeepMask takes from the frames (mean and standard deviation over ImageNet).
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Channels(NamedTuple):
    """Channel counts of a network of some width; `of(1.0)` is AlexNet's."""

    conv: tuple[int, int, int, int, int]
    fully_connected: int  # fc6, fc7
    reduction: int  # the 1x1 convolution in their place

    @staticmethod
    def of(width: float) -> Channels:
        """Multiples of 8, at least one of them."""

        def scale(count: int) -> int:
            return max(8, 8 * round(count * width / 8))

        return Channels((scale(96), scale(256), scale(384), scale(384), scale(256)), scale(4096), scale(128))


class Layers(NamedTuple):
    """What the encoder makes of frames."""

    features: dict[str, Float[Tensor, "n _"]]  # by name, after the ReLU, before dropout
    last: Float[Tensor, "n d"]  # what the mask is made of


def conv_side(size: int) -> int:
    """Side of conv3 to conv5's maps: 13 at 227 pixels. conv1 takes every fourth pixel without padding, each pooling every second."""
    first = (size - 11) // 4 + 1
    return _pooled(_pooled(first))


def _pooled(side: int) -> int:
    return (side - 3) // 2 + 1


class FrameEncoder(Encoder):
    """Frames -> conv5, fc6 and fc7: AlexNet without its classifier. Without fc6 and fc7: conv5 and a 1x1 convolution."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: MotionMaskConfig) -> None:
        super().__init__()
        self.size, self.dropout = config.size, config.dropout
        self.channels = Channels.of(config.width)
        (one, two, three, four, five), hidden, reduction = self.channels
        norm, groups = config.norm, config.groups
        for name, value in (("mean", MEAN), ("deviation", DEVIATION)):
            self.register_buffer(name, torch.tensor(value).view(3, 1, 1))
        self.conv1 = _convolution(3, one, 11, norm, stride=4, responses=True, pool=True)
        self.conv2 = _convolution(one, two, 5, norm, padding=2, groups=groups, responses=True, pool=True)
        self.conv3 = _convolution(two, three, 3, norm, padding=1)
        self.conv4 = _convolution(three, four, 3, norm, padding=1, groups=groups)
        self.conv5 = _convolution(four, five, 3, norm, padding=1, groups=groups)
        self.pool5 = nn.MaxPool2d(3, stride=2)
        side = conv_side(config.size)
        self.fully_connected = config.fully_connected
        if config.fully_connected:
            self.fc6 = _linear(five * _pooled(side) ** 2, hidden, norm)
            self.fc7 = _linear(hidden, hidden, norm)
            self.length = hidden
        else:
            self.reduction = _convolution(five, reduction, 1, norm)
            self.length = reduction * side**2
        _initialize(self)

    def layers(self, frames: Float[Tensor, "n 3 s s"]) -> Layers:
        """All that is made of `frames`, which are in [-1, 1].

        Raises:
            ValueError: they are not (n, 3, size, size).
        """
        if frames.ndim != 4 or tuple(frames.shape[1:]) != (3, self.size, self.size):
            raise ValueError(
                f"the motion-mask network takes frames of (n, 3, {self.size}, {self.size}), got {tuple(frames.shape)}: "
                f"set data.clip.size={self.size}, or objective.size"
            )
        inputs = ((frames + 1) / 2 - self.mean) / self.deviation
        maps = self.conv1(inputs.contiguous(memory_format=torch.channels_last))
        conv5 = self.conv5(self.conv4(self.conv3(self.conv2(maps)))).contiguous()
        pooled = self.pool5(conv5).flatten(1)
        if not self.fully_connected:
            last = self.reduction(conv5).flatten(1)
            return Layers({"conv5": pooled, "reduction": last}, last)
        fc6 = self.fc6(pooled)
        fc7 = self.fc7(F.dropout(fc6, self.dropout, self.training))
        return Layers({"conv5": pooled, "fc6": fc6, "fc7": fc7}, F.dropout(fc7, self.dropout, self.training))

    def forward(self, video: Float[Tensor, "b c t h w"]) -> dict[str, Float[Tensor, "b _"]]:
        """Video (b, 3, t, size, size) in [-1, 1], any t -> {"conv5": b 9216, "fc6": b 4096, "fc7": b 4096} at the paper's size.

        Means over the t frames of what each gives: conv5 after pooling, flattened in the order channel, row, column; all after the
        ReLU, hence >= 0. Without fully connected layers: conv5 and reduction (b 128*13*13).

        Raises:
            ValueError: the video has another shape.
        """
        if video.ndim != 5:
            raise ValueError(f"video is (b, 3, t, {self.size}, {self.size}), got {tuple(video.shape)}")
        clips, length = video.shape[0], video.shape[2]
        features = self.layers(video.transpose(1, 2).flatten(0, 1)).features
        return {name: value.unflatten(0, (clips, length)).mean(dim=1) for name, value in features.items()}


class MaskHead(nn.Sequential):
    """(n, d) -> logits (n, side^2): one linear layer, or two with a bottleneck between them that no ReLU follows."""

    def __init__(self, config: MotionMaskConfig, length: int) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if config.low_rank is not None:
            layers["low_rank"] = nn.Linear(length, config.low_rank)
            if config.norm == "batch":
                layers["norm"] = nn.BatchNorm1d(config.low_rank)
            length = config.low_rank
        layers["mask"] = nn.Linear(length, config.mask_side**2)
        super().__init__(layers)
        for name, layer in self.named_children():
            if isinstance(layer, nn.Linear):
                # Small logits to begin with, as AlexNet's classifier has them; a bottleneck keeps the variance.
                nn.init.normal_(layer.weight, std=0.01 if name == "mask" else layer.in_features**-0.5)
                nn.init.zeros_(layer.bias)


class MaskNetwork(nn.Module):
    """Everything that is trained: the encoder that is kept, and the head that is dropped."""

    def __init__(self, config: MotionMaskConfig) -> None:
        super().__init__()
        self.mask_side = config.mask_side
        self.encoder = FrameEncoder(config)
        self.head = MaskHead(config, self.encoder.length)

    def forward(self, frames: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 1 m m"]:
        """Logits of the foreground at the side of the mask; frames (n, 3, size, size) in [-1, 1]."""
        return self.head(self.encoder.layers(frames).last).unflatten(1, (1, self.mask_side, self.mask_side))


def _convolution(
    channels: int,
    out: int,
    kernel: int,
    norm: str,
    *,
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
    responses: bool = False,
    pool: bool = False,
) -> nn.Sequential:
    """Convolution, BatchNorm, ReLU, local response normalisation, max pooling: each where it is wanted."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        convolution=nn.Conv2d(channels, out, kernel, stride, padding, groups=groups)
    )
    if norm == "batch":
        layers["norm"] = nn.BatchNorm2d(out)
    layers["relu"] = nn.ReLU()
    if norm == "lrn" and responses:
        layers["responses"] = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)
    if pool:
        layers["pool"] = nn.MaxPool2d(3, stride=2)
    return nn.Sequential(layers)


def _linear(length: int, out: int, norm: str) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict(linear=nn.Linear(length, out))
    if norm == "batch":
        layers["norm"] = nn.BatchNorm1d(out)
    layers["relu"] = nn.ReLU()
    return nn.Sequential(layers)


def _initialize(module: nn.Module) -> None:
    """He et al. (2015), eq. 10, biases 0: seven layers with ReLUs keep the variance of their input, with or without BatchNorm."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
