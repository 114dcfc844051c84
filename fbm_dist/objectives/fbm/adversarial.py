"""The losses of critics and of who plays against them, as functions of their logits: pairs of one scene, real and made frames."""

from __future__ import annotations

import math
from typing import Literal

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

CHANCE = math.log(2)  # what a critic that knows nothing pays, and a model that has taken everything from it
Kind = Literal["hinge", "bce"]


def over(values: Float[Tensor, "..."], chosen: Bool[Tensor, "..."]) -> Float[Tensor, ""]:
    """The mean of the chosen values; 0 where none is."""
    return (values * chosen).sum() / chosen.sum().clamp(min=1)


def tell_scenes(
    logits: Float[Tensor, "m n"], same: Bool[Tensor, "m n"], other: Bool[Tensor, "m n"]
) -> Float[Tensor, ""]:
    """The scene critic's cross-entropy (Denton and Birodkar, 2017, eq. 3): 1 for one scene, 0 for two; both weigh alike."""
    return (over(F.softplus(-logits.float()), same) + over(F.softplus(logits.float()), other)) / 2


def confuse_scenes(
    logits: Float[Tensor, "m n"], same: Bool[Tensor, "m n"], other: Bool[Tensor, "m n"]
) -> Float[Tensor, ""]:
    """The model's side (eq. 4): cross-entropy to 1/2, the critic's maximum entropy; ln 2 at the least, of either kind of pair."""
    logits = logits.float()
    undecided = (F.softplus(-logits) + F.softplus(logits)) / 2
    return (over(undecided, same) + over(undecided, other)) / 2


def scene_accuracy(
    logits: Float[Tensor, "m n"], same: Bool[Tensor, "m n"], other: Bool[Tensor, "m n"]
) -> Float[Tensor, ""]:
    """Share of pairs that the critic tells right, the two kinds weighing alike; 0.5 is chance."""
    return (over((logits > 0).float(), same) + over((logits <= 0).float(), other)) / 2


def tell_frames(
    real: Float[Tensor, "b 1 h w"], made: Float[Tensor, "b 1 h w"], seen: Bool[Tensor, " b"], loss: Kind
) -> Float[Tensor, ""]:
    """The frame critic's loss: hinge (Miyato et al., 2018, eq. 16) or cross-entropy (Mathieu et al., 2016, eq. 5).

    Args:
        seen: the frames that count.
    """
    real, made = real.float(), made.float()
    if loss == "hinge":
        each = F.relu(1 - real) + F.relu(1 + made)
    else:
        each = F.softplus(-real) + F.softplus(made)
    return over(each.mean(dim=(1, 2, 3)), seen)


def pass_for_real(made: Float[Tensor, "b 1 h w"], seen: Bool[Tensor, " b"], loss: Kind) -> Float[Tensor, ""]:
    """The model's side: -critic (eq. 17 of Miyato et al.), or the cross-entropy to "real" (Mathieu et al., eq. 7)."""
    made = made.float()
    return over((-made if loss == "hinge" else F.softplus(-made)).mean(dim=(1, 2, 3)), seen)
