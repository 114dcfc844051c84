"""The temporal coherency losses as functions of embeddings (Redondo-Cabrera and Lopez-Sastre, 2018, equations 2 and 3)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def distances(a: Float[Tensor, "b d"], b: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
    """Euclidean distance of each row of `a` to the same row of `b`; its gradient is 0 where they are equal."""
    return torch.linalg.vector_norm(a - b, dim=1)


def together(near: Float[Tensor, " b"], squared: bool) -> Float[Tensor, " b"]:
    """What a pair of neighbours at distance `near` costs: d (eq. 2, first line), or d^2 / 2 (Hadsell et al., 2006)."""
    return near.square() / 2 if squared else near


def apart(far: Float[Tensor, "*b"], margin: float, squared: bool) -> Float[Tensor, "*b"]:
    """What a pair at distance `far` costs that is to be apart: [margin - d]_+ (eq. 2, second line), or half of its square."""
    hinge = (margin - far).clamp(min=0)
    return hinge.square() / 2 if squared else hinge


def ranked(
    far: Float[Tensor, " b"], strangers: Float[Tensor, "b k"], margin: float, squared: bool
) -> Float[Tensor, "b k"]:
    """[d(query, far frame) - d(query, stranger) + margin]_+ of eq. 3, for each stranger; `squared` distances if asked for."""
    if squared:
        far, strangers = far.square(), strangers.square()
    return (far[:, None] - strangers + margin).clamp(min=0)


def ranked_at_once(
    far: Float[Tensor, " b"], strangers: Float[Tensor, " b"], margin: float, squared: bool
) -> Float[Tensor, ""]:
    """The authors' hinge: [sum d(query, far frame) - sum d(query, stranger) + margin]_+ / b, the margin once for all tuples.

    A tuple that is in order by more than its share pays for another that is not. Squared, the sums are Frobenius norms.
    """
    if squared:
        far, strangers = far.square(), strangers.square()
    return (far.sum() - strangers.sum() + margin).clamp(min=0) / len(far)


def over_strangers(values: Float[Tensor, "b k"], counts: Bool[Tensor, "b k"]) -> Float[Tensor, " b"]:
    """The mean of each row over the strangers that count; 0 for a row that has none."""
    return (values * counts).sum(dim=1) / counts.sum(dim=1).clamp(min=1)
