"""The terms of FBM's loss (Lin et al., 2017, equations 2 to 6) and the background coherency term, as functions of tensors."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from fbm_dist.layers.strangers import other_film


def foreground_weights(
    mask: Float[Tensor, "b 1 h w"], known: Float[Tensor, "b 1 h w"] | None = None
) -> Float[Tensor, "b 1 h w"]:
    """W of eq. 6 for a binary mask: max(1, A_bg / A_fg) on the foreground, 1 elsewhere; all 0 where the mask is empty.

    The empty case is the original implementation's: such a frame says nothing about the foreground, and eq. 6 is undefined.
    With a trimap, `known` is 1 on foreground and background, 0 on don't cares: they weigh nothing and are in neither area.
    """
    area = mask.sum(dim=(1, 2, 3), keepdim=True)
    whole = mask[0].numel() if known is None else known.sum(dim=(1, 2, 3), keepdim=True)
    ratio = ((whole - area) / area.clamp(min=1)).clamp(min=1)
    weights = torch.where(mask > 0, ratio, torch.ones_like(mask) if known is None else known)
    return torch.where(area > 0, weights, torch.zeros_like(mask))


def reconstruction(
    image: Float[Tensor, "b 3 h w"], target: Float[Tensor, "b 3 h w"], weights: Float[Tensor, "b 1 h w"] | None = None
) -> Float[Tensor, ""]:
    """L1 distance in float32, mean over clips, channels and pixels: eq. 4 with `weights`, eq. 5 without."""
    distance = (image.float() - target.float()).abs()
    return (distance if weights is None else weights * distance).mean()


def feature_distance(
    moved: Float[Tensor, "b f 4 4"], reversed_: Float[Tensor, "b f 4 4"], last: Bool[Tensor, " b"] | None = None
) -> Float[Tensor, ""]:
    """L_feat of eq. 7: mean squared distance to the first foreground's features of the reversed clip, which are constants.

    Args:
        last: the clips whose features were moved to the last frame, with which alone a reversed clip begins; the others count as 0.
    """
    distance = (moved.float() - reversed_.detach().float()).square()
    return (distance if last is None else distance * last[:, None, None, None]).mean()


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
