"""How much of the motion features is decided by what is not motion: a term that a change of scene or of thing is measured by (ours)."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor

from fbm_dist.objectives.fbm.critics import TINY


def share(
    motion: Float[Tensor, "b m 4 4"], changed: Float[Tensor, "b m 4 4"], exists: Bool[Tensor, " b"]
) -> Float[Tensor, ""]:
    """The share of the motion features that a change decides: mean over channels of E (m - m')^2 / E (var m + var m').

    m' are the features of the same clips with another scene, or with another thing, that moves alike. 0: what was changed is nowhere in
    them; 1: m' has nothing in common with m. Expectations are over clips and places, variances over clips at each place: what all clips
    have in common counts for nothing, and making the features small is no way out. 0 where fewer than two clips exist.

    Args:
        exists: which clips could be changed; the others do not count.
    """
    if exists.sum() < 2:
        return (motion * 0).sum().float() + (changed * 0).sum().float()
    one, two = motion[exists].float(), changed[exists].float()
    spread = (one.var(dim=0) + two.var(dim=0)).mean(dim=(1, 2))
    return ((one - two).square().mean(dim=(0, 2, 3)) / (spread + TINY)).mean()
