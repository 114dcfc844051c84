"""The trimap and the logistic loss on certain pixels (Pathak et al., 2017, section 5.2), and the overlap that the log shows."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F


class Trimap(NamedTuple):
    """What is certain of a soft mask; what is neither is a "don't care"."""

    positive: Bool[Tensor, "b 1 m m"]
    negative: Bool[Tensor, "b 1 m m"]

    @property
    def certain(self) -> Bool[Tensor, "b 1 m m"]:
        """Pixels that the loss looks at."""
        return self.positive | self.negative


def reduced(mask: Float[Tensor, "b 1 h w"], side: int) -> Float[Tensor, "b 1 m m"]:
    """Scores in [0, 1] at the side of the network's mask: the mean over what each of its pixels covers."""
    return F.adaptive_avg_pool2d(mask.float(), side)


def trimap(scores: Float[Tensor, "b 1 m m"], negative: float, positive: float) -> Trimap:
    """Below `negative`: background; above `positive`: foreground."""
    return Trimap(scores > positive, scores < negative)


def logistic(logits: Float[Tensor, "b 1 m m"], target: Trimap, pixels: Literal["mean", "sum"]) -> Float[Tensor, ""]:
    """log(1 + exp(-y * logit)), y = 1 on the foreground and -1 on the background, in float32; 0 on don't cares. Mean over clips.

    Args:
        pixels: sum over a clip's certain pixels; mean: the same, divided by the number of *all* pixels of its mask. A certain pixel
            thus counts alike in every clip, and a clip that has none adds 0.
    """
    each = F.binary_cross_entropy_with_logits(logits.float(), target.positive.float(), reduction="none")
    summed = torch.where(target.certain, each, torch.zeros_like(each)).sum(dim=(1, 2, 3))
    return (summed / logits[0].numel() if pixels == "mean" else summed).mean()


def overlap(
    found: Bool[Tensor, "b 1 m m"], wanted: Bool[Tensor, "b 1 m m"], within: Bool[Tensor, "b 1 m m"] | None = None
) -> Float[Tensor, ""]:
    """Intersection over union, mean over clips; 1 where both are empty. `within`: the pixels that count."""
    if within is not None:
        found, wanted = found & within, wanted & within
    union = (found | wanted).sum(dim=(1, 2, 3))
    shared = (found & wanted).sum(dim=(1, 2, 3))
    return torch.where(union > 0, shared / union.clamp(min=1), torch.ones_like(union, dtype=torch.float32)).mean()
