"""Conditional entropy against sums done by hand, and its two ends."""

from __future__ import annotations

import numpy as np
import pytest

from fbm_dist.evaluation.measures.entropy import (
    class_entropy,
    cluster_entropies,
    conditional_entropy,
    normalised_information,
)


def test_by_hand() -> None:
    """Cluster 0: classes 0 0 0 1 (0.8113 bits); cluster 7: classes 1 2 (1 bit): 4/6 * 0.8113 + 2/6 * 1."""
    target = np.array([0, 0, 0, 1, 1, 2])
    cluster = np.array([0, 0, 0, 0, 7, 7])
    found = cluster_entropies(target, cluster)
    assert found.cluster.tolist() == [0, 7]
    assert found.size.tolist() == [4, 2]
    three_to_one = -(0.75 * np.log2(0.75) + 0.25 * np.log2(0.25))
    np.testing.assert_allclose(found.entropy, [three_to_one, 1.0])
    assert conditional_entropy(target, cluster) == pytest.approx((4 * three_to_one + 2) / 6)
    # H(X|Y) = H(X, Y) - H(Y): the same by another way
    both = class_entropy(target * 10 + cluster)
    assert conditional_entropy(target, cluster) == pytest.approx(both - class_entropy(cluster))


def test_ends() -> None:
    target = np.repeat(np.arange(8), 5)
    assert conditional_entropy(target, (target * 3 + 1) % 8) == pytest.approx(0)  # other numbers, the same parts
    assert normalised_information(target, (target * 3 + 1) % 8) == pytest.approx(1)
    assert conditional_entropy(target, np.zeros(40, int)) == pytest.approx(3)  # log2 8
    assert class_entropy(target) == pytest.approx(3)
    across = np.tile(np.arange(5), 8)  # every cluster has one of every class
    assert conditional_entropy(target, across) == pytest.approx(3)
    assert normalised_information(target, across) == pytest.approx(0, abs=1e-9)


def test_the_direction_is_that_of_the_paper() -> None:
    """A cluster for every clip leaves no doubt about the class, though the class says little about the cluster."""
    target = np.array([0, 0, 1, 1])
    assert conditional_entropy(target, np.arange(4)) == pytest.approx(0)
    assert conditional_entropy(np.arange(4), target) == pytest.approx(1)
