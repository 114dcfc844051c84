"""Graph and voting against a naive dense reference, and their fixed points."""

from __future__ import annotations

import numpy as np
import pytest

from data_tools.unlc.config import Graph, Voting
from data_tools.unlc.graph import consensus_graph
from data_tools.unlc.voting import consensus


def regions(counts: list[int], seed: int = 0) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.random((count, 12)).astype(np.float32) * 0.3 for count in counts]


def dense(blocks: list[np.ndarray], settings: Graph) -> np.ndarray:
    """The definition, in float64, one pair at a time."""
    frame = np.repeat(np.arange(len(blocks)), [len(block) for block in blocks])
    points = np.concatenate(blocks).astype(np.float64)
    out = np.zeros((len(points), len(points)))
    for i, point in enumerate(points):
        away = np.abs(frame - frame[i])
        near = np.flatnonzero((away <= settings.window) & (away % settings.stride == 0))
        distances = np.square(points[near] - point).sum(1)
        chosen = np.argsort(distances, kind="stable")[: settings.neighbours]
        out[i, near[chosen]] = np.exp(-distances[chosen] / settings.bandwidth)
    return out / out.sum(1, keepdims=True)


@pytest.mark.parametrize("settings", [Graph(window=2, stride=1, neighbours=7), Graph(window=4, stride=2, neighbours=5)])
def test_equals_the_dense_reference(settings: Graph) -> None:
    blocks = regions([9, 5, 11, 7, 8, 6])
    graph = consensus_graph(blocks, settings)
    np.testing.assert_allclose(graph.toarray(), dense(blocks, settings), atol=1e-5)
    assert graph.dtype == np.float32
    assert graph.nnz == 46 * settings.neighbours, "sparse: M entries a row"


def test_a_small_shot_uses_all_its_regions() -> None:
    graph = consensus_graph(regions([3, 2]), Graph(window=15, stride=1, neighbours=62))
    assert graph.nnz == 25
    np.testing.assert_allclose(graph.sum(1), 1, atol=1e-6)


def test_exact_duplicates_are_the_best_neighbours() -> None:
    """The original lost edges of distance 0."""
    block = regions([6])[0]
    graph = consensus_graph([block, block.copy()], Graph(window=1, stride=1, neighbours=2)).toarray()
    np.testing.assert_allclose(graph[:6, 6:], np.eye(6) / 2, atol=1e-3)


def test_agreement_is_a_fixed_point() -> None:
    graph = consensus_graph(regions([5, 7]), Graph(neighbours=6))
    votes = consensus(np.ones(12, np.float32), graph, np.array([0, 5]), Voting(iterations=20, restart=0))
    np.testing.assert_allclose(votes, 1, atol=1e-5)


def test_votes_spread_to_look_alikes_in_frames_that_had_none() -> None:
    thing, ground = np.zeros((1, 12), np.float32), np.full((4, 12), 0.5, np.float32)
    blocks = [np.concatenate([thing, ground])] * 3
    first = np.zeros(15, np.float32)
    first[0] = 1  # seen to move in the first frame only
    graph = consensus_graph(blocks, Graph(stride=1, neighbours=6))
    votes = consensus(first, graph, np.array([0, 5, 10]), Voting(iterations=10, restart=0)).reshape(3, 5)
    np.testing.assert_allclose(votes[:, 0], 1, atol=1e-5)
    assert votes[:, 1:].max() < 0.1


def test_each_frame_is_scaled_by_its_own_strongest() -> None:
    graph = consensus_graph(regions([8, 8, 8]), Graph(neighbours=5))
    votes = consensus(np.linspace(0, 0.3, 24, dtype=np.float32), graph, np.array([0, 8, 16]), Voting())
    np.testing.assert_allclose(votes.reshape(3, 8).max(1), 1, rtol=1e-5)
    assert votes.min() >= 0


def test_restart_holds_on_to_the_first_votes() -> None:
    graph = consensus_graph(regions([10]), Graph(neighbours=10))
    first = np.zeros(10, np.float32)
    first[3] = 1
    spread = consensus(first, graph, np.array([0]), Voting(iterations=50, restart=0))
    held = consensus(first, graph, np.array([0]), Voting(iterations=50, restart=0.3))
    assert np.delete(spread, 3).mean() > 0.9, "everyone is like everyone: without restart the vote floods"
    assert held.argmax() == 3
    assert np.delete(held, 3).mean() < 0.8


def test_no_votes_stay_none() -> None:
    graph = consensus_graph(regions([4, 4]), Graph(neighbours=3))
    assert not consensus(np.zeros(8, np.float32), graph, np.array([0, 4]), Voting()).any()
