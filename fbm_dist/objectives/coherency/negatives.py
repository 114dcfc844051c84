"""Negatives: which embeddings a query is held apart from: a frame of another film, of any other clip, and of the other processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float, Int64
from torch import Tensor


@dataclass(frozen=True)
class Strangers:
    """Distances of b queries to k negatives each.

    Attributes:
        distance: Euclidean.
        counts: whether a negative is one for this query; the first column is its own.
    """

    distance: Float[Tensor, "b k"]
    counts: Bool[Tensor, "b k"]

    @property
    def own(self) -> Float[Tensor, " b"]:
        """The distance to the query's own negative."""
        return self.distance[:, 0]


def any_other(query: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
    """For each clip the query of the next one in the batch, in a circle, whatever its film: a random frame of all films joined."""
    return query.roll(-1, dims=0)


class Gathered(torch.autograd.Function):
    """The tensors of all processes, one above the other in rank order; their gradients find back to the process that they are from."""

    @staticmethod
    def forward(context: Any, own: Float[Tensor, "b d"]) -> Float[Tensor, "n d"]:
        context.rows = len(own)
        parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, own.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(  # type: ignore[override]
        context: Any, gradient: Float[Tensor, "n d"]
    ) -> Float[Tensor, "b d"]:
        summed = gradient.contiguous().clone()
        dist.all_reduce(summed)  # of the losses of all processes, in all that they took from this one
        start = dist.get_rank() * context.rows
        return summed[start : start + context.rows]


def gather_strangers(
    query: Float[Tensor, "b d"], film: Int64[Tensor, " b"], any_film: bool
) -> tuple[Float[Tensor, "n d"], Bool[Tensor, "b n"]]:
    """The queries of all processes, and for which of this one's queries each of them is a further negative.

    The queries of other processes count where they are of another film, with `any_film` always; this process' own never do.
    Every process must call it with as many clips. Gradient reaches the others' embeddings, so that the mean over the processes
    is the loss of the whole batch, differentiated.
    """
    films = [torch.empty_like(film) for _ in range(dist.get_world_size())]
    dist.all_gather(films, film.contiguous())
    counts = torch.cat([torch.full_like(f, rank != dist.get_rank()) for rank, f in enumerate(films)]).bool()
    counts = counts.expand(len(query), -1)
    if not any_film:
        counts = counts & (film[:, None] != torch.cat(films)[None, :])
    gathered: Tensor = Gathered.apply(query)
    return gathered, counts


def several_processes() -> bool:
    """Whether there is anybody to gather from."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
