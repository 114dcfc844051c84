"""The terms of DrNet's loss (Denton and Birodkar, 2017, equations 1 to 4), as functions of tensors; means over elements, as in the code."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def reconstruction(image: Float[Tensor, "b 3 h w"], frame: Float[Tensor, "b 3 h w"]) -> Float[Tensor, ""]:
    """Eq. 1: mean squared error in float32, both in [0, 1]."""
    return F.mse_loss(image.float(), frame.float())


def similarity(content: Float[Tensor, "b c"], other: Float[Tensor, "b c"]) -> Float[Tensor, ""]:
    """Eq. 2: mean squared error between the contents of two frames of a clip; `other` is a constant."""
    return F.mse_loss(content.float(), other.detach().float())


def scene(same: Float[Tensor, " b"], different: Float[Tensor, " b"], exists: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """Eq. 3, what the scene discriminator minimises: cross entropy on pairs of one clip (1) and of two films (0), half each.

    Args:
        same: logits of pairs of one clip; different: of two films.
        exists: 1 where there are pairs of two films, else 0. Then so is the loss: who sees one answer only learns to give it always.
    """
    known = F.binary_cross_entropy_with_logits(same, torch.ones_like(same))
    strange = F.binary_cross_entropy_with_logits(different, torch.zeros_like(different))
    return exists * (known + strange) / 2


def uncertainty(logits: Float[Tensor, " b"]) -> Float[Tensor, ""]:
    """Eq. 4, the adversarial term: cross entropy to 1/2 on pairs of one clip. At least log 2, where the discriminator knows nothing."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, 0.5))
