"""The terms of FBM's loss (Lin et al., 2017, equations 2 to 6) and the background coherency term, as functions of tensors."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F


def foreground_weights(mask: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
    """W of eq. 6 for a binary mask: max(1, A_bg / A_fg) on the foreground, 1 elsewhere; all 0 where the mask is empty.

    The empty case is the original implementation's: such a frame says nothing about the foreground, and eq. 6 is undefined.
    """
    area = mask.sum(dim=(1, 2, 3), keepdim=True)
    whole = mask[0].numel()
    ratio = ((whole - area) / area.clamp(min=1)).clamp(min=1)
    weights = torch.where(mask > 0, ratio, torch.ones_like(mask))
    return torch.where(area > 0, weights, torch.zeros_like(mask))


def reconstruction(
    image: Float[Tensor, "b 3 h w"], target: Float[Tensor, "b 3 h w"], weights: Float[Tensor, "b 1 h w"] | None = None
) -> Float[Tensor, ""]:
    """L1 distance in float32, mean over clips, channels and pixels: eq. 4 with `weights`, eq. 5 without."""
    distance = (image.float() - target.float()).abs()
    return (distance if weights is None else weights * distance).mean()


def feature_distance(moved: Float[Tensor, "b f 4 4"], reversed_: Float[Tensor, "b f 4 4"]) -> Float[Tensor, ""]:
    """L_feat of eq. 7: mean squared distance to the first foreground's features of the reversed clip, which are constants."""
    return (moved.float() - reversed_.detach().float()).square().mean()


def other_film(film: Int64[Tensor, " b"]) -> tuple[Int64[Tensor, " b"], Bool[Tensor, " b"]]:
    """For each clip the next one of the batch, in a circle, that comes from another film; and whether there is one."""
    different = film[:, None] != film[None, :]
    position = torch.arange(len(film), device=film.device)
    steps = (position[None, :] - position[:, None]) % len(film)
    nearest = torch.where(different, steps, len(film)).argmin(dim=1)
    return nearest, different.any(dim=1)


def background_coherency(
    background: Float[Tensor, "b d"], reversed_: Float[Tensor, "b d"], film: Int64[Tensor, " b"], margin: float
) -> Float[Tensor, ""]:
    """Per-tuple hinge [d(clip, reversed clip) - d(clip, clip of another film) + margin]_+, mean over clips.

    d is the squared Euclidean distance of L2-normalised features, in [0, 2] as these are non-negative.
    The reversed clip's background is that of the last frame, hence the near neighbour in time; it is a constant.
    A batch of one film has no tuples: the term is 0. Any other batch has one for each of its clips.
    """
    near = F.normalize(reversed_.detach().float(), dim=1)
    anchor = F.normalize(background.float(), dim=1)
    negative, exists = other_film(film)
    attraction = (anchor - near).square().sum(dim=1)
    repulsion = (anchor - anchor[negative]).square().sum(dim=1)
    hinge = (attraction - repulsion + margin).clamp(min=0)
    return (exists * hinge).mean()
