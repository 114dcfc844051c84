"""Graph and voting in tensors, beside the sparse ones on the same descriptors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from data_tools.unlc import graph as cpu
from data_tools.unlc import voting as cpu_voting
from data_tools.unlc.config import Graph, Voting
from data_tools.unlc.tensors import pictures
from data_tools.unlc.tensors.graph import Neighbours, consensus_graph
from data_tools.unlc.tensors.voting import consensus

COUNTS = [9, 5, 11, 7, 8, 6]
SETTINGS = [Graph(window=2, stride=1, neighbours=7), Graph(window=4, stride=2, neighbours=5), Graph(), Graph(window=0)]


def shot() -> tuple[list[np.ndarray], Tensor, Tensor]:
    """Frames of different numbers of regions: as blocks, and padded with which are present (some in the middle are not)."""
    generator = np.random.default_rng(0)
    places = [np.sort(generator.permutation(12)[:count]) for count in COUNTS]
    padded = torch.rand(len(COUNTS), 12, 10, generator=torch.Generator().manual_seed(0)) * 0.3
    there = torch.zeros(len(COUNTS), 12, dtype=torch.bool)
    for i, place in enumerate(places):
        there[i, place] = True
    return [block[known].numpy() for block, known in zip(padded, there, strict=True)], padded, there


def dense(graph: Neighbours, there: Tensor) -> np.ndarray:
    """T among the regions that are present."""
    number = there.numel()
    out = torch.zeros(number, number)
    out.scatter_add_(1, graph.regions.flatten(0, 1), graph.weights.flatten(0, 1))
    assert not out[~there.flatten()].any(), "a region that is not present has no votes"
    assert not out[:, ~there.flatten()].any(), "and gives none"
    return out[there.flatten()][:, there.flatten()].numpy()


@pytest.mark.parametrize("settings", SETTINGS)
def test_equals_the_sparse_graph(settings: Graph) -> None:
    blocks, padded, there = shot()
    graph = consensus_graph(padded, there, settings)
    np.testing.assert_allclose(dense(graph, there), cpu.consensus_graph(blocks, settings).toarray(), atol=1e-5)


def test_pieces_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    _, padded, there = shot()
    whole = consensus_graph(padded, there, Graph(window=2, stride=1, neighbours=7))
    monkeypatch.setattr(pictures, "BUDGET", {"cpu": 1})
    pieces = consensus_graph(padded, there, Graph(window=2, stride=1, neighbours=7))
    np.testing.assert_allclose(dense(pieces, there), dense(whole, there), atol=1e-6)


def test_exact_duplicates_are_the_best_neighbours() -> None:
    block = torch.rand(1, 6, 12)
    graph = consensus_graph(
        block.repeat(2, 1, 1), torch.ones(2, 6, dtype=torch.bool), Graph(window=1, stride=1, neighbours=2)
    )
    np.testing.assert_allclose(dense(graph, torch.ones(2, 6, dtype=torch.bool))[:6, 6:], np.eye(6) / 2, atol=1e-3)


@pytest.mark.parametrize("settings", [Voting(), Voting(restart=0.0, iterations=20), Voting(iterations=0)])
def test_votes_equal_the_others(settings: Voting) -> None:
    blocks, padded, there = shot()
    first = torch.rand(there.shape, generator=torch.Generator().manual_seed(1)) * there
    first[2] = 0  # a frame that nobody votes in at first
    found = consensus(first, consensus_graph(padded, there, SETTINGS[0]), settings)
    starts = np.cumsum([0, *COUNTS[:-1]])
    expected = cpu_voting.consensus(first[there].numpy(), cpu.consensus_graph(blocks, SETTINGS[0]), starts, settings)
    np.testing.assert_allclose(found[there].numpy(), expected, atol=1e-5)
    assert not found[~there].any()


def test_no_votes_stay_none() -> None:
    _, padded, there = shot()
    assert not consensus(torch.zeros(there.shape), consensus_graph(padded, there, Graph()), Voting()).any()
