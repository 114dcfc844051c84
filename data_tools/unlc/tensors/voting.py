"""Consensus voting by gathering: v <- T v, each frame's strongest region kept at 1 (Faktor & Irani 2014, section 3.2)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from data_tools.unlc.config import Voting
from data_tools.unlc.tensors.graph import Neighbours


def consensus(votes: Float[Tensor, "t k"], graph: Neighbours, settings: Voting) -> Float[Tensor, "t k"]:
    """The votes after `iterations` rounds, in [0, 1].

    Args:
        votes: first votes of the shot's regions, >= 0; 0 for those that are not present.
    """
    first = votes
    for _ in range(settings.iterations):
        votes = (votes.flatten()[graph.regions] * graph.weights).sum(-1)
        if settings.restart:
            votes = (1 - settings.restart) * votes + settings.restart * first
        largest = votes.amax(1, keepdim=True)
        # a frame that no vote has reached stays at 0, also where the largest is too small to divide by
        votes = votes / torch.where(largest > torch.finfo(torch.float32).tiny, largest, 1)
    return votes
