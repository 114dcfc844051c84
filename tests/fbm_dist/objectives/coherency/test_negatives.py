"""Negatives of other processes: which count, and that gradients are those of the whole batch, on two forked ranks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fbm_dist.clip import Clip
from fbm_dist.objectives.coherency.config import CoherencyConfig
from fbm_dist.objectives.coherency.negatives import any_other, gather_strangers
from tests.distributed import run_ranks

RANKS = 2
FILMS = [[7, 3, 3], [3, 7, 5]]


def test_any_other_clip_is_the_next_one() -> None:
    query = torch.arange(6.0).view(3, 2)
    assert any_other(query).tolist() == [[2, 3], [4, 5], [0, 1]]


def gathered(rank: int) -> tuple[Tensor, list[list[bool]], list[list[bool]], Tensor]:
    query = torch.arange(6.0).view(3, 2) + 10 * rank
    query.requires_grad_()
    film = torch.tensor(FILMS[rank])
    others, counts = gather_strangers(query, film, any_film=False)
    _, any_counts = gather_strangers(query, film, any_film=True)
    (others * (rank + 1)).sum().backward()
    assert query.grad is not None
    return others.detach(), counts.tolist(), any_counts.tolist(), query.grad


@pytest.mark.distributed
def test_the_queries_of_other_processes_count_where_their_film_is_another() -> None:
    found = run_ranks(RANKS, gathered)
    everything = torch.cat([torch.arange(6.0).view(3, 2), torch.arange(6.0).view(3, 2) + 10])
    for rank, (others, counts, any_counts, gradient) in enumerate(found):
        assert torch.equal(others, everything)
        for i, film in enumerate(FILMS[rank]):
            expected = [FILMS[r][j] != film and r != rank for r in range(RANKS) for j in range(3)]
            assert counts[i] == expected
            assert any_counts[i] == [r != rank for r in range(RANKS) for _ in range(3)]
        assert (gradient == 1 + 2).all(), "what both ranks' losses say of this rank's queries"


def one_loss(rank: int, config: CoherencyConfig, clips: list[Clip]) -> tuple[float, float, float]:
    torch.manual_seed(0)
    objective = config.build()
    training = objective("model", clips[rank]).total.item()
    looking = objective.eval()("model", clips[rank]).total.item()
    alone = config.model_copy(update={"gather_negatives": False})
    torch.manual_seed(0)
    return training, looking, alone.build()("model", clips[rank]).total.item()


@pytest.mark.distributed
@pytest.mark.parametrize("negatives", ["film", "any"])
@pytest.mark.parametrize("kind", ["siamese", "quadruplet", "triplet"])
def test_the_hinge_is_the_mean_over_own_and_gathered_negatives(kind: str, negatives: str, make_clip: Any) -> None:
    """In numbers, for each tuple; in eval mode nobody gathers, for validation deals its batches unevenly."""
    small = {"size": 64, "width": 0.05, "initialization": "he", "gather_negatives": True}
    config = CoherencyConfig.model_validate(small | {"loss": {"kind": kind}, "negatives": negatives})
    far, by_film = len(config.loss.roles) - 1, negatives == "film"
    frames = far + 1 + by_film
    clips = [make_clip(2, seed=rank, frames=frames) for rank in range(RANKS)]
    torch.manual_seed(0)
    model = config.build().model
    with torch.no_grad():
        embedded = [
            torch.nn.functional.normalize(model.embed(c.video.transpose(1, 2).flatten(0, 1)), dim=1) for c in clips
        ]
    margin = config.loss.margin
    for rank, (training, looking, alone) in enumerate(run_ranks(RANKS, one_loss, config, clips)):
        own, theirs = (embedded[r].unflatten(0, (2, -1)) for r in (rank, 1 - rank))
        total = 0.0
        for i in range(2):
            query = own[i, 0]
            # make_clip numbers films by position: the other rank's clip i is of the same film
            strangers = [own[i, -1], theirs[1 - i, 0]] if by_film else [own[1 - i, 0], theirs[0, 0], theirs[1, 0]]
            d = [float((query - x).norm()) for x in strangers]
            to_far = float((query - own[i, far]).norm())
            hinges = [max(0.0, margin - x if kind == "siamese" else to_far - x + margin) for x in d]
            near = 0.0 if kind == "triplet" else float((query - own[i, 1]).norm())
            total += (near + sum(hinges) / len(hinges)) / 2
        assert training == pytest.approx(total, rel=1e-4)
        assert looking == alone != training


def test_alone_there_is_nobody_to_gather_from(make_clip: Any) -> None:
    losses = []
    for gather in (False, True):
        torch.manual_seed(0)
        config = CoherencyConfig(size=64, width=0.05, gather_negatives=gather)
        losses.append(config.build()("model", make_clip(2, frames=4)).total)
    assert torch.equal(*losses)
