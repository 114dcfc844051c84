"""The FBM network: C3D encoder, split bottleneck, image decoders, cross convolution (Lin et al., 2017, section 3, Figure 1)."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from fbm_dist.layers.initialization import xavier_, xavier_bias_
from fbm_dist.objectives.fbm.config import EncoderConfig, FBMConfig
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


class Reconstruction(NamedTuple):
    """What the decoders make of one clip; images in [-1, 1]."""

    first_foreground: Float[Tensor, "b 3 h w"]
    first_background: Float[Tensor, "b 3 h w"]
    last_foreground: Float[Tensor, "b 3 h w"]
    last_features: Float[Tensor, "b f 4 4"]  # G(f_T) of eq. 1, as moved by the motion features
    bottleneck: Bottleneck


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


def _block2d(channels: int, out: int, kernel: int) -> nn.Sequential:
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


class Deconvolution(nn.ConvTranspose2d):
    """TensorFlow's conv2d_transpose with kernel 5, stride 2, padding SAME: doubles the side, output[2i + k - 1] += input[i] * weight[k].

    PyTorch's padding=2, output_padding=1 has the right size and is shifted by one pixel.
    """

    def __init__(self, channels: int, out: int) -> None:
        super().__init__(channels, out, kernel_size=5, stride=2, padding=1)

    def forward(  # type: ignore[override]
        self, x: Float[Tensor, "b c h w"]
    ) -> Float[Tensor, "b o h2 w2"]:
        """(b, c, h, w) -> (b, o, 2h, 2w)."""
        return super().forward(x)[..., :-1, :-1]


class ImageDecoder(nn.Sequential):
    """Features (b, f, 4, 4) -> image (b, 3, size, size) in (-1, 1): a 1x1 convolution, then deconvolutions, tanh."""

    def __init__(self, features: int, channels: tuple[int, ...], size: int) -> None:
        # At 64 pixels one deconvolution fewer: the second 512 -> 512.
        hidden = channels if size == 128 else channels[:2] + channels[3:]
        layers: OrderedDict[str, nn.Module] = OrderedDict(expand=_block2d(features, hidden[0], 1))
        for i, (before, after) in enumerate(pairwise(hidden), start=1):
            block = OrderedDict(convolution=Deconvolution(before, after)) | norm_relu(nn.BatchNorm2d(after))
            layers[f"deconv{i}"] = nn.Sequential(block)
        layers["image"] = Deconvolution(hidden[-1], 3)
        layers["tanh"] = nn.Tanh()
        super().__init__(layers)
        xavier_(self)


class KernelDecoder(nn.Module):
    """Motion features -> one bank of convolution kernels per clip. The 4x4 map is the kernels' support."""

    def __init__(self, motion: int, cross: int) -> None:
        super().__init__()
        self.cross = cross
        self.conv1 = _block2d(motion, cross * cross, 3)
        self.conv2 = _block2d(cross * cross, cross * cross, 3)
        self.conv3 = nn.Conv2d(cross * cross, cross * cross, 3, padding=1)
        xavier_(self)

    def forward(self, motion: Float[Tensor, "b m 4 4"]) -> Float[Tensor, "b o i 4 4"]:
        """Kernels by clip, out channel, in channel, row, column. The channel of the map is in * cross + out, as in the original."""
        bank = self.conv3(self.conv2(self.conv1(motion)))
        return bank.unflatten(1, (self.cross, self.cross)).transpose(1, 2)


class CrossConvolution(nn.Module):
    """M of eq. 1: the first foreground's features, moved by the clip's own kernels (Xue et al., 2016, without sampling, one scale)."""

    def __init__(self, foreground: int, cross: int) -> None:
        super().__init__()
        self.reduction = _block2d(foreground, cross, 1)
        self.bias = nn.Parameter(torch.empty(cross))  # shared by all clips
        self.restoring = _block2d(cross, foreground, 1)
        xavier_(self)
        xavier_bias_(self.bias)

    def forward(
        self, foreground: Float[Tensor, "b f 4 4"], kernels: Float[Tensor, "b o i 4 4"]
    ) -> Float[Tensor, "b f 4 4"]:
        """The features of the last foreground; gradients reach `foreground` as they may: the caller blocks them."""
        return self.restoring(cross_convolve(self.reduction(foreground), kernels, self.bias))


def cross_convolve(
    x: Float[Tensor, "b i h w"], kernels: Float[Tensor, "b o i 4 4"], bias: Float[Tensor, " o"]
) -> Float[Tensor, "b o h w"]:
    """Each clip convolved with its own kernels, as one convolution whose groups are the clips; size kept.

    TensorFlow's SAME puts the odd row and column of padding of an even kernel last: 1 before, 2 after.
    """
    batch, out = kernels.shape[:2]
    rows = F.pad(x, (1, 2, 1, 2)).flatten(0, 1).unsqueeze(0)
    moved = F.conv2d(rows, kernels.flatten(0, 1).to(rows.dtype), bias.to(rows.dtype).repeat(batch), groups=batch)
    return moved.unflatten(1, (batch, out)).squeeze(0)


class FBMNetwork(nn.Module):
    """Everything that is trained: the encoder that is kept, and the decoders that are dropped."""

    def __init__(self, config: FBMConfig) -> None:
        super().__init__()
        channels = Channels.of(config.width)
        self.encoder = FBMEncoder(config)
        self.foreground_decoder = ImageDecoder(channels.foreground, channels.image, config.size)
        self.background_decoder = ImageDecoder(channels.background, channels.image, config.size)
        self.kernel_decoder = KernelDecoder(channels.motion, channels.cross)
        self.cross_convolution = CrossConvolution(channels.foreground, channels.cross)

    def forward(self, video: Float[Tensor, "b c t h w"]) -> Reconstruction:
        """Reconstruct the first and the last frame of `video` (b, 3, 16, size, size) in [-1, 1]."""
        bottleneck = self.encoder.maps(video)
        # Section 3: what the last frame asks for must not be stored in the first frame's foreground, so no gradient passes here.
        last = self.cross_convolution(bottleneck.foreground.detach(), self.kernel_decoder(bottleneck.motion))
        return Reconstruction(
            first_foreground=self.foreground_decoder(bottleneck.foreground),
            first_background=self.background_decoder(bottleneck.background),
            last_foreground=self.foreground_decoder(last),
            last_features=last,
            bottleneck=bottleneck,
        )
