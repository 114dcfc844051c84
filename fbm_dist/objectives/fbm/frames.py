"""What the decoders are to make of a clip: frames parted by their masks, and which pixels count (Lin et al., 2017, eq. 2 and 6)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from fbm_dist.clip import Clip
from fbm_dist.objectives.fbm.config import FBMConfig
from fbm_dist.objectives.fbm.losses import foreground_weights

Frame = int | Int64[Tensor, " b"]  # the same of all clips, or one of each


class Target(NamedTuple):
    """One frame of each clip. What is masked out of an image is 0, mid-grey.

    Attributes:
        frame: in [-1, 1].
        mask: b_fg of eq. 2: 1 on the foreground, else 0.
        known: 1 where the mask can be trusted, else 0, and neither loss looks there; None: it can everywhere.
    """

    frame: Float[Tensor, "b 3 h w"]
    mask: Float[Tensor, "b 1 h w"]
    known: Float[Tensor, "b 1 h w"] | None = None

    @property
    def foreground(self) -> Float[Tensor, "b 3 h w"]:
        """x_fg of eq. 2."""
        return self.frame * self.mask

    @property
    def background(self) -> Float[Tensor, "b 3 h w"]:
        """x_bg of eq. 2; don't cares are in neither image."""
        return self.frame * ((1 if self.known is None else self.known) - self.mask)

    def kept(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """`image` without the don't cares, which are 0."""
        return image if self.known is None else image * self.known

    @property
    def weights(self) -> Float[Tensor, "b 1 h w"]:
        """W of eq. 6."""
        return foreground_weights(self.mask, self.known)


def target(clip: Clip, frame: Frame, config: FBMConfig) -> Target:
    """The frame with index `frame` of each clip, parted by its mask.

    Raises:
        ValueError: the clip has no masks, or they do not fit its video.
    """
    mask, known = parted(clip, config)
    return Target(at(clip.video, frame), at(mask, frame), None if known is None else at(known, frame))


def parted(clip: Clip, config: FBMConfig) -> tuple[Float[Tensor, "b 1 t h w"], Float[Tensor, "b 1 t h w"] | None]:
    """(b_fg of eq. 2, what is known) of every frame: soft scores as foreground, background and, with a trimap, don't care.

    Raises:
        ValueError: the clip has no masks, or they do not fit its video.
    """
    scores, dtype = clip.required_mask("FBM"), clip.video.dtype
    if config.trimap is None:
        return (scores > config.mask_threshold).to(dtype), None
    mask = scores > config.trimap.high
    return mask.to(dtype), (mask | (scores < config.trimap.low)).to(dtype)


def at(video: Float[Tensor, "b c t h w"], frame: Frame) -> Float[Tensor, "b c h w"]:
    """The frame with index `frame`: the same of all clips, or one of each."""
    if isinstance(frame, int):
        return video[:, :, frame]
    return video[torch.arange(len(video), device=video.device), :, frame]
