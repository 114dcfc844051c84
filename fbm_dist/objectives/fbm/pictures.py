"""Pictures for a human: the paper's Figure 2, and what is made of the first foreground at later frames."""

from __future__ import annotations

import torch
from jaxtyping import UInt8
from torch import Tensor

from fbm_dist.clip import Clip
from fbm_dist.layers.pictures import grid, looking, titled, to_uint8
from fbm_dist.objectives.fbm.config import FBMConfig
from fbm_dist.objectives.fbm.frames import target
from fbm_dist.objectives.fbm.network import FBMNetwork

PICTURES = 8  # clips that are shown
COLUMNS = ("input", "foreground", "background", "last foreground")
SHARES = (0.25, 0.5, 0.75, 1.0)  # of a clip's length: the later frames that are shown


def figure_2(network: FBMNetwork, clip: Clip, config: FBMConfig) -> UInt8[Tensor, "n h w 3"]:
    """Input, foreground and background of the first frame, foreground of the last, of each of the first 8 clips; made in eval mode.

    Above what the network should make, beside the input's first frame; below what it makes, beside the input's last frame. What is
    masked out is mid-grey.
    """
    first, last = (target(clip, frame, config) for frame in (0, -1))
    with looking(network):
        out = network(clip.video[:PICTURES])
    above = [first.frame, first.foreground, first.background, last.foreground]
    below = [last.frame, out.first_foreground, out.first_background, out.last_foreground]
    return titled(grid([[to_uint8(tile[:PICTURES]) for tile in row] for row in (above, below)]), COLUMNS)


def later_frames(network: FBMNetwork, clip: Clip, config: FBMConfig) -> UInt8[Tensor, "n h w 3"]:
    """The foregrounds of four later frames of the first 8 clips, above what the network makes of the first; made in eval mode."""
    video = clip.video[:PICTURES]
    times = [round(share * (config.frames - 1)) for share in SHARES]
    with looking(network):
        made = [network(video, torch.full((len(video),), t, device=video.device)).last_foreground for t in times]
    real = [target(clip, t, config).foreground[:PICTURES] for t in times]
    tiles = [[to_uint8(tile) for tile in row] for row in (real, made)]
    return titled(grid(tiles), [f"frame {t + 1}" for t in times])
