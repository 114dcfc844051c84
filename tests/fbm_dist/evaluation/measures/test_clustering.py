"""Clusterings: Ng's own cases, a dense reference, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score

from fbm_dist.evaluation.measures import clustering
from fbm_dist.evaluation.measures.clustering import (
    k_means,
    median_distance,
    scaled,
    spectral,
    spectral_embedding,
    spread,
)


def rings(points: int = 150) -> tuple[np.ndarray, np.ndarray]:
    """Two circles of the radii 1 and 3 about one centre: float32 (2 points, 2) and which is which."""
    angle = np.tile(np.linspace(0, 2 * np.pi, points, endpoint=False), 2)
    which = np.repeat([0, 1], points)
    radius = np.where(which, 3.0, 1.0) + np.random.default_rng(0).normal(0, 0.05, 2 * points)
    return (radius * np.stack([np.cos(angle), np.sin(angle)])).T.astype(np.float32), which


def reference(features: np.ndarray, k: int, sigma: float) -> np.ndarray:
    """Steps 1 to 4 of Ng, Jordan and Weiss, word for word: the rows' inner products, which no choice of basis changes."""
    n = len(features)
    affinity = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            if i != j:
                affinity[i, j] = np.exp(-((features[i] - features[j]) ** 2).sum() / (2 * sigma**2))
    root = np.diag(affinity.sum(axis=1) ** -0.5)
    values, vectors = np.linalg.eigh(root @ affinity @ root)
    largest = vectors[:, np.argsort(values)[-k:]]
    rows = largest / np.linalg.norm(largest, axis=1, keepdims=True)
    return np.asarray(rows @ rows.T)


def test_spectral_clustering_parts_rings_and_k_means_does_not() -> None:
    points, which = rings()
    assert adjusted_rand_score(which, spectral(points, 2, 0, sigma=0.3)) == 1
    assert adjusted_rand_score(which, k_means(points, 2, 0)) < 0.1


@pytest.mark.parametrize("dense", [True, False])
def test_embedding_is_that_of_the_reference(dense: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """LAPACK in float64, and ARPACK in float32 with its own start."""
    points, _ = make_blobs(60, 5, centers=4, cluster_std=2.0, random_state=0)
    points = points.astype(np.float32).astype(np.float64)  # both ways see the same numbers
    if not dense:
        monkeypatch.setattr(clustering, "DENSE", 0)
    found = spectral_embedding(points, 4, sigma=4.0)
    assert found.shape == (60, 4)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1)
    np.testing.assert_allclose(found @ found.T, reference(points, 4, 4.0), atol=1e-9 if dense else 1e-4)
    np.testing.assert_array_equal(found, spectral_embedding(points, 4, sigma=4.0))


def test_rows_are_scaled_to_unit_length_against_uneven_clusters() -> None:
    """Ng's reason for step 4: a tight part and a wide one lie on orthogonal rays, all rows of a part at one point."""
    random = np.random.default_rng(0)
    points = np.concatenate([random.normal(0, 0.1, (80, 2)), random.normal(8, 1.0, (20, 2))]).astype(np.float32)
    found = spectral_embedding(points, 2, sigma=1.0)
    inner = found @ found.T
    assert inner[:80, :80].min() > 0.999
    assert inner[80:, 80:].min() > 0.999
    assert abs(inner[:80, 80:]).max() < 0.01


def test_sigma_is_the_median_distance_unless_it_is_given() -> None:
    points = np.array([[0.0], [1.0], [3.0]])  # distances 1, 2, 3
    assert median_distance(points) == 2
    np.testing.assert_array_equal(spectral_embedding(points, 2), spectral_embedding(points, 2, sigma=2.0))
    assert not np.allclose(abs(spectral_embedding(points, 2)), abs(spectral_embedding(points, 2, sigma=0.5)))


def test_k_means_of_many_clips_goes_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    points, which = make_blobs(400, 3, centers=4, cluster_std=0.3, random_state=1)
    whole = k_means(points, 4, 0)
    monkeypatch.setattr(clustering, "MINI_BATCH", 100)
    monkeypatch.setattr(clustering, "BATCH", 64)
    monkeypatch.setattr(clustering, "KMeans", lambda *_, **__: pytest.fail("all at once"))
    assert adjusted_rand_score(which, k_means(points, 4, 0)) == adjusted_rand_score(which, whole) == 1


def test_a_seed_is_a_clustering() -> None:
    points = np.random.default_rng(0).normal(size=(200, 4))
    one, same, other = (k_means(points, 12, seed, starts=1) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert adjusted_rand_score(one, other) < 1
    assert one.dtype == np.int64
    assert set(one.tolist()) == set(range(12))


def test_equal_rows_give_fewer_clusters_and_no_warning() -> None:
    found = k_means(np.repeat(np.eye(2), 5, axis=0), 4, 0)
    assert len(set(found[:5])) == len(set(found[5:])) == 1
    assert found[0] != found[5]


def test_scaling() -> None:
    features = np.array([[3.0, 4.0], [0.0, 10.0], [6.0, 1.0]])
    np.testing.assert_array_equal(scaled(features, "none"), features)
    np.testing.assert_allclose(scaled(features, "standard").mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(scaled(features, "standard").std(axis=0), 1)
    np.testing.assert_allclose(scaled(features, "l2")[0], [0.6, 0.8])


def test_spread_reaches_both_ends() -> None:
    assert spread(5, 9).tolist() == [0, 1, 2, 3, 4]
    found = spread(1000, 10)
    assert (found[0], found[-1], len(found)) == (0, 999, 10)
    assert set(np.diff(found)) == {111}


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    points = np.random.default_rng(0).normal(size=(10, 3))
    with pytest.raises(ValueError, match="11 clusters of 10 clips"):
        k_means(points, 11, 0)
    with pytest.raises(ValueError, match="11 clusters of 10 clips"):
        spectral(points, 11, 0)
    with pytest.raises(ValueError, match="median distance is 0"):
        spectral(np.ones((10, 3)), 2, 0)
    with pytest.raises(ValueError, match=r"sigma is too small: 10 clips .* no neighbour"):
        spectral(points, 2, 0, sigma=1e-3)
    monkeypatch.setattr(clustering, "SPECTRAL_MAX", 9)
    with pytest.raises(ValueError, match=r"spectral clustering of 10 clips .* at most 9"):
        spectral(points, 2, 0)
