"""How the foreground moves: motion features -> convolution kernels, and the cross convolution with them (Lin et al., 2017, eq. 1)."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from fbm_dist.layers.initialization import xavier_, xavier_bias_
from fbm_dist.objectives.fbm.encoder import block2d


class KernelDecoder(nn.Module):
    """Motion features -> one bank of convolution kernels per clip. The 4x4 map is the kernels' support.

    Full, the maps are the kernels: cross^2 of them. Factorised to `rank` r (ours), they are two factors at each place (y, x) of the
    kernels, L and R of r vectors of `cross` each, whose product is the matrix from in to out channels that stands there:
    K[out, in, y, x] = sum over r of L[r, in, y, x] * R[r, out, y, x] / sqrt(r).

    With `random_frame` (ours) the kernels move to any frame t of `frames`: one more map of the motion features says t ("condition"),
    or t chooses a scale and an offset of every hidden channel ("kernels").
    """

    def __init__(
        self, motion: int, cross: int, rank: int | None = None, random_frame: str | None = None, frames: int = 16
    ) -> None:
        super().__init__()
        self.cross, self.rank, self.frames = cross, rank, frames
        self.conditioned = random_frame == "condition"
        hidden = cross * (rank or cross)
        self.conv1 = block2d(motion + self.conditioned, hidden, 3)
        self.conv2 = block2d(hidden, hidden, 3)
        self.conv3 = nn.Conv2d(hidden, 2 * hidden if rank else hidden, 3, padding=1)
        xavier_(self)
        self.modulation = FrameModulation(frames, hidden) if random_frame == "kernels" else None

    def forward(
        self, motion: Float[Tensor, "b m 4 4"], frame: Int64[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b o i 4 4"]:
        """Kernels by clip, out channel, in channel, row, column. The channel of the map is in * cross + out, as in the original.

        Args:
            frame: t of each clip, which `random_frame` looks at; None: the last.
        """
        if frame is None:
            frame = torch.full((len(motion),), self.frames - 1, device=motion.device)
        if self.conditioned:
            place = (frame / (self.frames - 1)).to(motion.dtype)
            motion = torch.cat([motion, place[:, None, None, None].expand(-1, 1, *motion.shape[2:])], dim=1)
        hidden = self.conv2(self.conv1(motion))
        maps = self.conv3(hidden if self.modulation is None else self.modulation(hidden, frame))
        if self.rank is None:
            return maps.unflatten(1, (self.cross, self.cross)).transpose(1, 2)
        left, right = maps.unflatten(1, (2, self.rank, self.cross)).unbind(1)
        return torch.einsum("brihw,brohw->boihw", left, right) / math.sqrt(self.rank)


class FrameModulation(nn.Module):
    """A scale and an offset of every channel for each frame t, learnt; at the start they change nothing."""

    def __init__(self, frames: int, channels: int) -> None:
        super().__init__()
        self.of_frame = nn.Embedding(frames, 2 * channels)
        nn.init.zeros_(self.of_frame.weight)

    def forward(self, x: Float[Tensor, "b c h w"], frame: Int64[Tensor, " b"]) -> Float[Tensor, "b c h w"]:
        """x * (1 + scale of t) + offset of t."""
        scale, offset = self.of_frame(frame)[:, :, None, None].chunk(2, dim=1)
        return x * (1 + scale) + offset


class CrossConvolution(nn.Module):
    """M of eq. 1: the first foreground's features, moved by the clip's own kernels (Xue et al., 2016, without sampling, one scale)."""

    def __init__(self, foreground: int, cross: int) -> None:
        super().__init__()
        self.reduction = block2d(foreground, cross, 1)
        self.bias = nn.Parameter(torch.empty(cross))  # shared by all clips
        self.restoring = block2d(cross, foreground, 1)
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
