"""k nearest neighbours: a vote by hand, the answers of the probe section of a run, and the corners."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fbm_dist.evaluation.probes.config import Neighbours
from fbm_dist.evaluation.probes.neighbours import votes
from fbm_dist.training.monitoring.probe import TEMPERATURE, nearest_neighbours


def at(degrees: float, length: float = 1.0) -> list[float]:
    return [length * np.cos(np.radians(degrees)), length * np.sin(np.radians(degrees))]


def test_a_vote_by_hand() -> None:
    """Cosine similarity, whatever the length: cos 10, 20, 30 degrees weigh exp(s / 0.5); the fourth is none of the three nearest."""
    train = np.array([at(10), at(-20, 7), at(30, 0.1), at(31)])
    found = votes(train, np.array([0, 2, 2, 0]), np.array([at(0, 3)]), 3, Neighbours(k=3, temperature=0.5))
    weight = np.exp(np.cos(np.radians([10, 20, 30])) / 0.5)
    expected = [weight[0] / weight.sum(), 0, weight[1:].sum() / weight.sum()]
    np.testing.assert_allclose(found, [expected])


def test_a_low_temperature_listens_to_the_nearest_alone() -> None:
    train, test = np.array([at(10), at(20), at(-20)], np.float32), np.array([at(0), at(180)], np.float32)
    found = votes(train, np.array([1, 0, 0]), test, 2, Neighbours(k=3, temperature=1e-4))
    np.testing.assert_allclose(found, [[0, 1], [1, 0]], atol=1e-9)


@pytest.mark.parametrize("k", [1, 7, 20, 500])
def test_the_answers_are_those_of_the_probe_while_training(k: int) -> None:
    random = np.random.default_rng(0)
    target = random.integers(0, 4, 260)
    centres = random.normal(size=(4, 16))
    values = (centres[target] + 1.5 * random.normal(size=(260, 16))).astype(np.float32)
    known, asked = slice(0, 200), slice(200, 260)
    found = votes(values[known], target[known], values[asked], 4, Neighbours(k=k, temperature=TEMPERATURE))
    train, classes, test = (torch.from_numpy(array) for array in (values[known], target[known], values[asked]))
    assert found.argmax(axis=1).tolist() == nearest_neighbours(train, classes, test, k, 4).tolist()
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert 0.4 < (found.argmax(axis=1) == target[asked]).mean() < 1


def test_classes_that_are_not_learnt_get_no_votes() -> None:
    found = votes(np.eye(2), np.array([1, 3]), np.array([[1.0, 0.0]]), 5, Neighbours(k=1))
    assert found.tolist() == [[0, 1, 0, 0, 0]]
