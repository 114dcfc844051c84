"""The scene, to be kept out of the motion features: clips set in another film's scene, and pairs of features that share one (ours)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from fbm_dist.clip import Clip
from fbm_dist.layers.strangers import other_film
from fbm_dist.objectives.fbm.config import FBMConfig
from fbm_dist.objectives.fbm.critics import TINY
from fbm_dist.objectives.fbm.encoder import Bottleneck
from fbm_dist.objectives.fbm.frames import parted


class Transplanted(NamedTuple):
    """Clips whose foreground stands in the scene of another film."""

    video: Float[Tensor, "b 3 t h w"]
    scene: Int64[Tensor, " b"]  # the clip of the batch that the scene is from
    exists: Bool[Tensor, " b"]  # there is another film, and a foreground to be set in it


def transplanted(clip: Clip, config: FBMConfig) -> Transplanted:
    """Each clip's foreground over the background of the next clip of another film, frame by frame.

    Where that clip's own foreground stood, its background of the other frames is seen: the mean of the same place over the frames in which
    it is not covered, mid-grey where it always is. What a trimap does not know goes with the foreground, into either.
    """
    mask, known = parted(clip, config)
    if known is not None:
        mask = torch.maximum(mask, 1 - known)
    free = 1 - mask
    still = (clip.video * free).sum(dim=2, keepdim=True) / free.sum(dim=2, keepdim=True).clamp(min=1)
    empty = clip.video * free + still * mask
    partner, exists = other_film(clip.film)
    return Transplanted(
        video=clip.video * mask + empty[partner] * free,
        scene=partner,
        exists=exists & mask.flatten(1).any(dim=1),
    )


class Pairs(NamedTuple):
    """Features of clips on two sides, and which of all their pairs are of one scene, which of two; other pairs do not count.

    All scenes come from the same batch. No gradient is blocked here.
    """

    left: Float[Tensor, "m c 4 4"]
    right: Float[Tensor, "n d 4 4"]
    same: Bool[Tensor, "m n"]
    other: Bool[Tensor, "m n"]


class Elsewhere(NamedTuple):
    """Motion features of transplanted clips: of which clip of the batch the scene is, and which of them count."""

    motion: Float[Tensor, "b m 4 4"]
    scene: Int64[Tensor, " b"]
    exists: Bool[Tensor, " b"]


class Views(NamedTuple):
    """What the encoder says of the clips themselves, of the clips reversed (constants), and of their foregrounds in other scenes."""

    maps: Bottleneck
    reversed: Bottleneck | None  # None: not needed, and not made
    elsewhere: Elsewhere | None


def scene_pairs(kind: str, views: Views, film: Int64[Tensor, " b"]) -> Pairs:
    """A clip's motion features, which learn, beside constants:

    background: its own background features, or those of another film;
    reversed: the motion of the same clip reversed, or of another film's (DrNet's pairs: two times of one clip);
    transplanted: the motion of another film's foreground in this clip's scene, with which it shares nothing else; or in a third film's.
    """
    maps, apart = views.maps, film[:, None] != film[None]
    own = torch.eye(len(film), dtype=torch.bool, device=film.device)
    if kind == "background":
        return Pairs(maps.motion, maps.background.detach(), own, apart)
    if kind == "reversed":
        assert views.reversed is not None, "these pairs need the reversed clips"
        return Pairs(maps.motion, views.reversed.motion.detach(), own, apart)
    assert views.elsewhere is not None, "these pairs need the transplanted clips"
    motion, scene, exists = views.elsewhere
    same, other = own[scene], apart[scene] & apart
    return Pairs(motion.detach(), maps.motion, same & exists[:, None], other & exists[:, None])


def scene_share(motion: Float[Tensor, "b m 4 4"], elsewhere: Elsewhere) -> Float[Tensor, ""]:
    """How much of the motion features the scene decides: mean over channels of E (m - m')^2 / E (var m + var m').

    m' are the features of the same foregrounds in other scenes. 0: the scene is nowhere in them; 1: m' has nothing in common with m.
    Expectations are over clips and places, variances over clips at each place: what all clips have in common counts for nothing, and
    making the features small is no way out. 0 where fewer than two clips exist.
    """
    exists = elsewhere.exists
    if exists.sum() < 2:
        return (motion * 0).sum().float() + (elsewhere.motion * 0).sum().float()
    one, two = motion[exists].float(), elsewhere.motion[exists].float()
    spread = (one.var(dim=0) + two.var(dim=0)).mean(dim=(1, 2))
    return ((one - two).square().mean(dim=(0, 2, 3)) / (spread + TINY)).mean()
