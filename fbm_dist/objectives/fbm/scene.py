"""The scene, to be kept out of the motion features: clips set in another film's scene, and pairs of features that share one (ours)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from fbm_dist.clip import Clip
from fbm_dist.layers.strangers import other_film
from fbm_dist.objectives.fbm.config import FBMConfig
from fbm_dist.objectives.fbm.encoder import Bottleneck
from fbm_dist.objectives.fbm.frames import parted


def emptied(clip: Clip, config: FBMConfig) -> tuple[Float[Tensor, "b 1 t h w"], Float[Tensor, "b 3 t h w"]]:
    """Masks of the foreground, and the clips without it.

    Where it stood, the background of the other frames is seen: the mean of the same place over the frames in which it is not covered,
    mid-grey where it always is. What a trimap does not know counts as foreground.
    """
    mask, known = parted(clip, config)
    if known is not None:
        mask = torch.maximum(mask, 1 - known)
    free = 1 - mask
    still = (clip.video * free).sum(dim=2, keepdim=True) / free.sum(dim=2, keepdim=True).clamp(min=1)
    return mask, clip.video * free + still * mask


class Transplanted(NamedTuple):
    """Clips whose foreground stands in the scene of another film."""

    video: Float[Tensor, "b 3 t h w"]
    scene: Int64[Tensor, " b"]  # the clip of the batch that the scene is from
    exists: Bool[Tensor, " b"]  # there is another film, and a foreground to be set in it


def transplanted(clip: Clip, config: FBMConfig) -> Transplanted:
    """Each clip's foreground over the background of the next clip of another film, frame by frame, as `emptied` makes it."""
    mask, empty = emptied(clip, config)
    partner, exists = other_film(clip.film)
    return Transplanted(
        video=clip.video * mask + empty[partner] * (1 - mask),
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
