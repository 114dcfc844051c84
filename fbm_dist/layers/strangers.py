"""Strangers: for each clip of a batch another one that comes from another film, the negative of losses that compare clips."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int64
from torch import Tensor


def other_film(film: Int64[Tensor, " b"]) -> tuple[Int64[Tensor, " b"], Bool[Tensor, " b"]]:
    """For each clip the next one of the batch, in a circle, that comes from another film; and whether there is one."""
    different = film[:, None] != film[None, :]
    position = torch.arange(len(film), device=film.device)
    steps = (position[None, :] - position[:, None]) % len(film)
    nearest = torch.where(different, steps, len(film)).argmin(dim=1)
    return nearest, different.any(dim=1)
