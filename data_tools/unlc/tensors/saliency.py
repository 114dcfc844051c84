"""Motion saliency of a shot in tensors: what deviates from the dominant motion (Pathak et al. 2017, section 5.1)."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from data_tools.flow import offsets
from data_tools.unlc.config import Motion
from data_tools.unlc.tensors.dominant import deviation
from data_tools.unlc.tensors.flow import Flow
from data_tools.unlc.tensors.pictures import box_mean, chunks


def motion_saliency(grey: UInt8[Tensor, "t y x"], settings: Motion, flow: Flow) -> tuple[Float[Tensor, "t y x"], float]:
    """Saliency, not yet normalised, and the share of frames that had a dominant motion.

    A frame's saliency is the mean over its flows that have a dominant motion, each smoothed by a box; zeros where there is none.

    Args:
        grey: the shot's frames at the flow's size.
    """
    total = torch.zeros(grey.shape, device=grey.device)
    count = torch.zeros(len(grey), device=grey.device)
    for offset in offsets(settings.baselines):
        first, last = max(0, -offset), min(len(grey), len(grey) - offset)
        for part in chunks(last - first, 16 * 4 * grey[0].numel(), grey.device):
            source = slice(first + part.start, first + part.stop)
            target = slice(source.start + offset, source.stop + offset)
            deviations, found = deviation(flow(grey[source], grey[target]), settings)
            total[source] += torch.where(found[:, None, None], deviations, 0)
            count[source] += found
    return box_mean(total / count.clamp_min(1)[:, None, None], settings.box), float((count > 0).float().mean())


def normalise(saliency: Float[Tensor, "t y x"], settings: Motion) -> Float[Tensor, "t y x"]:
    """Votes in [0, 1]: the border is cleared, then all is divided by the maximum (of the shot, or of each frame).

    A maximum below `floor` is taken for noise and not stretched to 1.
    """
    votes = saliency.clone()
    band = round(settings.border * min(votes.shape[1:]))
    if band:
        votes[:, :band] = votes[:, -band:] = 0
        votes[:, :, :band] = votes[:, :, -band:] = 0
    largest = votes.amax((1, 2), keepdim=True) if settings.scale == "frame" else votes.max()
    largest = largest.clamp_min(settings.floor)
    return torch.where(largest > 0, votes / largest.clamp_min(torch.finfo(torch.float32).tiny), 0)
