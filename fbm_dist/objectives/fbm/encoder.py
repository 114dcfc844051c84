"""The encoder that is kept: C3D, a mapping to 4x4, features that are split on channels (Lin et al., 2017, section 3, Figure 1)."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fbm_dist.layers.initialization import xavier_
from fbm_dist.objectives.fbm.config import EncoderConfig
from fbm_dist.objectives.objective import Encoder

BOTTLENECK = 4  # side of the bottleneck's map, and of the kernels that the motion features make


class Channels(NamedTuple):
    """Channel counts of a network of some width; `of(1.0)` is the paper's."""

    c3d: tuple[int, int, int, int]  # conv1, conv2, conv3a/b, conv4a to conv5b
    bottleneck: int
    foreground: int
    background: int
    motion: int
    image: tuple[int, int, int, int, int]  # the image decoder: 1x1, then the four hidden deconvolutions
    cross: int  # the maps that are cross-convolved

    @staticmethod
    def of(width: float) -> Channels:
        """Multiples of 8 (of 4 for the cross convolution), at least one of them; a third of the bottleneck each, the rest to motion."""

        def scale(count: int, multiple: int = 8) -> int:
            return max(multiple, multiple * round(count * width / multiple))

        bottleneck = scale(512)
        third = bottleneck // 3  # 512 gives the paper's 170, 170, 172
        return Channels(
            c3d=(scale(64), scale(128), scale(256), scale(512)),
            bottleneck=bottleneck,
            foreground=third,
            background=third,
            motion=bottleneck - 2 * third,
            image=(scale(1024), scale(512), scale(512), scale(256), scale(128)),
            cross=scale(48, 4),
        )


class Bottleneck(NamedTuple):
    """The encoder's maps after the ReLU, split on channels."""

    foreground: Float[Tensor, "b f 4 4"]
    background: Float[Tensor, "b g 4 4"]
    motion: Float[Tensor, "b m 4 4"]


def fourth_pooling(size: int) -> tuple[int, int, int]:
    """Its strides in time, rows and columns. At 64 pixels it halves time alone: the bottleneck stays 4x4."""
    return (2, 2, 2) if size == 128 else (2, 1, 1)


def norm_relu(norm: nn.Module, pool: nn.Module | None = None) -> OrderedDict[str, nn.Module]:
    """What follows a convolution: normalisation, pooling where there is one, ReLU."""
    # Max pooling and ReLU commute exactly; pooling first halves the memory that ReLU touches.
    layers: OrderedDict[str, nn.Module] = OrderedDict(norm=norm)
    if pool is not None:
        layers["pool"] = pool
    layers["relu"] = nn.ReLU(inplace=True)
    return layers


def block3d(channels: int, out: int, pool: tuple[int, int, int] | None = None) -> nn.Sequential:
    """A 3x3x3 convolution that keeps the size, BatchNorm, max pooling where it is given, ReLU."""
    convolution = nn.Conv3d(channels, out, kernel_size=3, padding=1)
    pooling = nn.MaxPool3d(pool) if pool else None
    return nn.Sequential(OrderedDict(convolution=convolution) | norm_relu(nn.BatchNorm3d(out), pooling))


def block2d(channels: int, out: int, kernel: int) -> nn.Sequential:
    """A convolution with an odd `kernel` that keeps the size, BatchNorm, ReLU."""
    convolution = nn.Conv2d(channels, out, kernel, padding=kernel // 2)
    return nn.Sequential(OrderedDict(convolution=convolution) | norm_relu(nn.BatchNorm2d(out)))


class FBMEncoder(Encoder):
    """16 frames -> foreground, background and motion features: C3D up to conv5b, a mapping to 4x4, a split on channels."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.frames, self.size = config.frames, config.size
        self.channels = Channels.of(config.width)
        one, two, three, four = self.channels.c3d
        self.c3d = nn.Sequential(
            OrderedDict(
                conv1=block3d(3, one, (1, 2, 2)),
                conv2=block3d(one, two, (2, 2, 2)),
                conv3a=block3d(two, three),
                conv3b=block3d(three, three, (2, 2, 2)),
                conv4a=block3d(three, four),
                conv4b=block3d(four, four, fourth_pooling(config.size)),
                conv5a=block3d(four, four),
                conv5b=block3d(four, four),
            )
        )
        out = self.channels.bottleneck
        mapping = nn.Conv3d(four, out, kernel_size=2, stride=(1, 2, 2))
        self.mapping = nn.Sequential(OrderedDict(convolution=mapping) | norm_relu(nn.BatchNorm3d(out)))
        xavier_(self)

    def maps(self, video: Float[Tensor, "b c t h w"]) -> Bottleneck:
        """The bottleneck of `video`, which is in [-1, 1].

        Raises:
            ValueError: the video is not (b, 3, 16, size, size).
        """
        expected = (3, self.frames, self.size, self.size)
        if video.ndim != 5 or tuple(video.shape[1:]) != expected:
            raise ValueError(
                f"the FBM encoder takes video of (b, {', '.join(map(str, expected))}), got {tuple(video.shape)}: "
                f"set data.clip.frames={self.frames} and data.clip.size={self.size}, or objective.size"
            )
        # The layout that convolutions are fastest in: 1.4 times on a CPU (README). Weights keep theirs: ZeRO flattens them.
        features = (
            self.mapping(self.c3d(video.contiguous(memory_format=torch.channels_last_3d))).squeeze(2).contiguous()
        )
        channels = self.channels
        background, foreground, motion = features.split(
            [channels.background, channels.foreground, channels.motion], dim=1
        )
        return Bottleneck(foreground, background, motion)

    def forward(self, video: Float[Tensor, "b c t h w"]) -> dict[str, Float[Tensor, "b _"]]:
        """Video (b, 3, 16, size, size) in [-1, 1] -> {"foreground": b 170*16, "background": b 170*16, "motion": b 172*16} at width 1.

        The maps after the ReLU, flattened in the order channel, row, column; values >= 0.

        Raises:
            ValueError: the video has another shape.
        """
        return {name: features.flatten(1) for name, features in self.maps(video)._asdict().items()}
