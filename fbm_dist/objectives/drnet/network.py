"""The DrNet network: content and pose encoder, decoder, scene discriminator (Denton and Birodkar, 2017, section 3 and 4.1)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from fbm_dist.objectives.drnet.config import DrNetConfig, Networks
from fbm_dist.objectives.drnet.frames import (
    VGG_DEPTHS,
    Maps,
    as_frames,
    frame_encoder,
    initialise_,
    norm_leaky,
    stage_channels,
    unit_range,
)
from fbm_dist.objectives.objective import Encoder

SCENE_UNITS = 100  # of each hidden layer of the scene discriminator


class Still(NamedTuple):
    """What stays in a clip: the content of one frame, and that frame's maps where the decoder takes skips."""

    content: Float[Tensor, "b c"]
    maps: Maps


class DCGANDecoder(nn.Module):
    """Code -> image in (0, 1): transposed convolutions, from 4x4 on; with `skips` each takes the encoder's map of its size, too."""

    def __init__(self, channels: tuple[int, ...], dim: int, skips: bool) -> None:
        super().__init__()
        self.skips = skips
        self.first = norm_leaky(nn.ConvTranspose2d(dim, channels[-1], 4), channels[-1])
        ups: list[nn.Module] = []
        for i in reversed(range(len(channels))):
            before, out = channels[i] * (2 if skips else 1), channels[i - 1] if i else 3
            up = nn.ConvTranspose2d(before, out, 4, 2, 1)
            ups.append(norm_leaky(up, out) if i else nn.Sequential(up, nn.Sigmoid()))
        self.ups = nn.ModuleList(ups)
        initialise_(self)

    def forward(self, code: Float[Tensor, "b d"], maps: Maps) -> Float[Tensor, "b 3 h w"]:
        """`maps`: of the content encoder, finest first; looked at with skips only."""
        x = self.first(code[:, :, None, None])
        for i, up in enumerate(self.ups):
            x = up(torch.cat([x, maps[-1 - i]], dim=1) if self.skips else x)
        return x


class VGGDecoder(nn.Module):
    """Code -> image in (0, 1): VGG-16 read backwards, nearest-neighbour upsampling in the place of pooling."""

    def __init__(self, channels: tuple[int, ...], dim: int, skips: bool) -> None:
        super().__init__()
        self.skips = skips
        self.first = norm_leaky(nn.ConvTranspose2d(dim, channels[-1], 4), channels[-1])
        stages: list[nn.Module] = []
        before = channels[-1]
        for i in reversed(range(len(channels))):
            # The last convolution of a stage has the channels of the next finer one; the finest leaves its last to the image.
            depth = VGG_DEPTHS[i]
            outs = [channels[i]] * (depth - 1) + ([channels[i - 1]] if i else [])
            ins = [before + (channels[i] if skips else 0), *outs[:-1]]
            layers = [norm_leaky(nn.Conv2d(a, b, 3, 1, 1), b) for a, b in zip(ins, outs, strict=True)]
            before = outs[-1]
            stages.append(nn.Sequential(*layers))
        self.stages = nn.ModuleList(stages)
        self.image = nn.Sequential(nn.Conv2d(before, 3, 3, 1, 1), nn.Sigmoid())
        initialise_(self)

    def forward(self, code: Float[Tensor, "b d"], maps: Maps) -> Float[Tensor, "b 3 h w"]:
        """`maps`: of the content encoder before pooling, finest first; looked at with skips only."""
        x = self.first(code[:, :, None, None])
        for i, stage in enumerate(self.stages):
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = stage(torch.cat([x, maps[-1 - i]], dim=1) if self.skips else x)
        return self.image(x)


def frame_decoder(config: Networks, dim: int, skips: bool) -> DCGANDecoder | VGGDecoder:
    """The decoder that mirrors the content encoder: VGG's, or DCGAN's for the others."""
    kind = "vgg" if config.content == "vgg" else "dcgan"
    channels = stage_channels(kind, config.size, config.width)
    return VGGDecoder(channels, dim, skips) if kind == "vgg" else DCGANDecoder(channels, dim, skips)


class DrNetEncoder(Encoder):
    """Content of a clip's first frame, pose of each of its frames."""

    def __init__(self, config: DrNetConfig) -> None:
        super().__init__()
        self.frames, self.size = config.frames, config.size
        self.content = frame_encoder(config.content, config.size, config.width, config.content_dim, config.content_code)
        self.pose = frame_encoder(config.pose, config.size, config.width, config.pose_dim, config.pose_code)

    def still(self, frame: Float[Tensor, "b 3 h w"]) -> Still:
        """The content of a frame in [-1, 1]."""
        return Still(*self.content(unit_range(frame)))

    def moving(self, frame: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b p"]:
        """The pose of a frame in [-1, 1]."""
        pose, _ = self.pose(unit_range(frame))
        return pose

    def forward(self, video: Float[Tensor, "b c t h w"]) -> dict[str, Float[Tensor, "b _"]]:
        """Video (b, 3, frames, size, size) in [-1, 1] -> {"content": b content_dim, "pose": b frames*pose_dim}.

        The content is the first frame's: it should be that of any frame. The poses stand one after the other in the order of time, not
        averaged: the motion is in how the pose changes.

        Raises:
            ValueError: the video has another shape.
        """
        check_video(video, self.frames, self.size)
        pose = self.moving(as_frames(video)).unflatten(0, video.shape[:3:2])
        return {"content": self.still(video[:, :, 0]).content, "pose": pose.flatten(1)}


def check_video(video: Float[Tensor, "b c t h w"], frames: int, size: int) -> None:
    """Whether `video` is (b, 3, frames, size, size).

    Raises:
        ValueError: saying what to set.
    """
    expected = (3, frames, size, size)
    if video.ndim != 5 or tuple(video.shape[1:]) != expected:
        raise ValueError(
            f"the encoder takes video of (b, {', '.join(map(str, expected))}), got {tuple(video.shape)}: "
            f"set objective.frames and objective.size, or data.clip.size={size}"
        )


class DrNetNetwork(nn.Module):
    """The player "model": the encoder that is kept, and the decoder."""

    def __init__(self, config: DrNetConfig) -> None:
        super().__init__()
        self.encoder = DrNetEncoder(config)
        self.decoder = frame_decoder(config, config.content_dim + config.pose_dim, config.skips)

    def decode(self, still: Still, moving: Float[Tensor, "b p"]) -> Float[Tensor, "b 3 h w"]:
        """The frame that has this content and this pose, in (0, 1)."""
        return self.decoder(torch.cat([still.content, moving], dim=1), still.maps)


class SceneDiscriminator(nn.Sequential):
    """The player "critic": two pose vectors -> the logit of "from one clip" (C of the paper; its sigmoid is in the loss)."""

    def __init__(self, pose_dim: int) -> None:
        super().__init__(
            nn.Linear(2 * pose_dim, SCENE_UNITS),
            nn.ReLU(),
            nn.Linear(SCENE_UNITS, SCENE_UNITS),
            nn.ReLU(),
            nn.Linear(SCENE_UNITS, 1),
        )

    def forward(  # type: ignore[override]
        self, first: Float[Tensor, "b p"], second: Float[Tensor, "b p"]
    ) -> Float[Tensor, " b"]:
        """One logit a pair, float32."""
        return super().forward(torch.cat([first, second], dim=1)).squeeze(1).float()
