"""The object, to be kept out of the motion features: clips in which another film's thing goes the way of their own (ours)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from fbm_dist.clip import Clip
from fbm_dist.layers.strangers import other_film
from fbm_dist.objectives.fbm.config import FBMConfig
from fbm_dist.objectives.fbm.frames import parted
from fbm_dist.objectives.fbm.scene import emptied

LEAST = 4.0  # pixels of a mask that has a place
GROWTH = 4.0  # times its usual size that a thing may seem, or a part of it: more is a mask that fails


class Exchanged(NamedTuple):
    """Clips whose foreground is that of another film."""

    video: Float[Tensor, "b 3 t h w"]
    exists: Bool[
        Tensor, " b"
    ]  # there is another film, whose middle frame has a foreground, and the clip's own has a place in each frame


class Places(NamedTuple):
    """Where a mask is in each frame; what it is where there is no mask is finite, and means nothing.

    Attributes:
        centre: x and y of its centre of mass, in [-1, 1] from the first pixel's centre to the last one's.
        side: of the square with its area, pixels.
        seen: it has LEAST pixels or more.
    """

    centre: Float[Tensor, "b t 2"]
    side: Float[Tensor, "b t"]
    seen: Bool[Tensor, "b t"]


def places(mask: Float[Tensor, "b 1 t h w"]) -> Places:
    """Centre and size of the foreground of each frame."""
    height, width = mask.shape[-2:]
    soft = mask[:, 0].float()
    area = soft.sum(dim=(2, 3))
    x, y = (torch.linspace(-1, 1, n, device=mask.device) for n in (width, height))
    centre = torch.stack([(soft.sum(dim=2) * x).sum(dim=2), (soft.sum(dim=3) * y).sum(dim=2)], dim=2)
    some = area.clamp(min=1)
    return Places(centre / some[..., None], some.sqrt(), area >= LEAST)


def exchanged(clip: Clip, config: FBMConfig) -> Exchanged:
    """Each clip with the thing of the next clip of another film in place of its own, in its own scene.

    The thing is cut from that clip's middle frame. It stands where the centre of the clip's own mask is in each frame, and grows and
    shrinks as that mask does, from its own size: beside the path nothing is copied, neither size nor outline, nor turning or bending.
    What the clip's own thing covered is filled as in `scene.emptied`.
    """
    _, empty = emptied(clip, config)
    mask, _ = parted(clip, config)  # surely foreground: don't cares have no say in where a thing is
    partner, exists = other_film(clip.film)
    path, middle = places(mask), mask.shape[2] // 2
    usual = path.side.median(dim=1, keepdim=True).values
    # From a place in the new frame to one in the frame that the thing is cut from.
    zoom = (usual / path.side).clamp(1 / GROWTH, GROWTH)
    maps = zoom.new_zeros(*zoom.shape, 2, 3)
    maps[..., 0, 0] = maps[..., 1, 1] = zoom
    maps[..., 2] = path.centre[partner, middle][:, None] - zoom[..., None] * path.centre
    things = torch.cat([clip.video * mask, mask], dim=1)[partner, :, middle].float()
    sources = things.repeat_interleave(zoom.shape[1], dim=0)
    grid = F.affine_grid(maps.flatten(0, 1), list(sources.shape), align_corners=True)
    drawn = F.grid_sample(sources, grid, align_corners=True).unflatten(0, zoom.shape).transpose(1, 2)
    drawn = drawn.to(clip.video.dtype)
    return Exchanged(
        video=drawn[:, :3] + empty * (1 - drawn[:, 3:]),
        exists=exists & path.seen.all(dim=1) & path.seen[partner, middle],
    )
