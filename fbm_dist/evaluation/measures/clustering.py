"""Clusters of feature vectors: k-means, and the normalised spectral clustering of Ng, Jordan and Weiss (NIPS 2001)."""

from __future__ import annotations

import warnings
from typing import Literal

import numpy as np
from scipy.linalg import eigh
from scipy.sparse.linalg import eigsh
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.preprocessing import StandardScaler, normalize

Scale = Literal["none", "standard", "l2"]
Sigma = float | Literal["median"]

STARTS = 10  # k-means++ starts of one clustering; the one with the least squared error is kept
MINI_BATCH = 50_000  # clips from which on k-means learns its centres from batches
BATCH = 4096  # clips of such a batch
DENSE = (
    1500  # clips up to which LAPACK finds the eigenvectors in float64; above, ARPACK in float32 is many times faster
)
SPECTRAL_MAX = 20_000  # clips: the kernel's matrix then has 1.6 GB
SIGMA_SAMPLE = 2000  # clips, evenly spread, whose pairwise distances give the median


def scaled(features: np.ndarray, scale: Scale) -> np.ndarray:
    """Features made comparable before distances are taken.

    Args:
        features: float (n, d).
        scale: none; standard: every column to zero mean and unit variance; l2: every row to unit length.
    """
    if scale == "standard":
        return np.asarray(StandardScaler().fit_transform(features))
    if scale == "l2":
        return np.asarray(normalize(features))
    return features


def k_means(features: np.ndarray, k: int, seed: int, *, starts: int = STARTS) -> np.ndarray:
    """k-means (Lloyd), the best of `starts` k-means++ starts; in batches from MINI_BATCH clips on.

    Args:
        features: float (n, d), finite.
        k: clusters, at most n.
    Returns:
        (n,) cluster per row, int64, below k. Fewer than k occur where there are fewer different rows.
    Raises:
        ValueError: fewer rows than clusters.
    """
    _check_number(features, k)
    if len(features) < MINI_BATCH:
        model = KMeans(k, init="k-means++", n_init=starts, random_state=seed)
    else:
        model = MiniBatchKMeans(k, init="k-means++", n_init=starts, batch_size=BATCH, random_state=seed)
    with warnings.catch_warnings():  # fewer different rows than k: the answer is right all the same
        warnings.simplefilter("ignore", ConvergenceWarning)
        return np.asarray(model.fit_predict(features), dtype=np.int64)


def spectral(features: np.ndarray, k: int, seed: int, *, sigma: Sigma = "median", starts: int = STARTS) -> np.ndarray:
    """Normalised spectral clustering: k-means on the rows of `spectral_embedding`. Arguments and errors as there."""
    return k_means(spectral_embedding(features, k, sigma=sigma), k, seed, starts=starts)


def spectral_embedding(features: np.ndarray, k: int, *, sigma: Sigma = "median") -> np.ndarray:
    """Steps 1 to 4 of Ng, Jordan and Weiss (2001): the k largest eigenvectors of D^-1/2 A D^-1/2, rows to unit length.

    A_ij = exp(-|x_i - x_j|^2 / (2 sigma^2)), A_ii = 0; D is the diagonal of A's row sums. (scikit-learn's
    SpectralClustering takes the random walk's eigenvectors and leaves the rows' lengths as they are: another method.)

    Args:
        features: float (n, d), finite.
        k: clusters, at most n.
        sigma: the kernel's width, in the features' own unit; "median": the median distance between two rows.
    Returns:
        (n, k) rows of unit length, float64; the eigenvectors' signs and the basis of equal eigenvalues are arbitrary.
    Raises:
        ValueError: fewer rows than clusters, more than SPECTRAL_MAX rows, equal rows, a sigma that leaves rows alone.
    """
    _check_number(features, k)
    n = len(features)
    if n > SPECTRAL_MAX:
        raise ValueError(
            f"spectral clustering of {n} clips would need {4 * n * n / 1e9:.1f} GB; take at most {SPECTRAL_MAX} of them, "
            "or k-means"
        )
    matrix = _normalised(_kernel(features, sigma))
    if n <= DENSE or k > n // 4:  # ARPACK wants far fewer vectors than rows
        _, vectors = eigh(matrix.astype(np.float64), subset_by_index=[n - k, n - 1], overwrite_a=True)
    else:
        start = np.random.default_rng(0).standard_normal(n).astype(matrix.dtype)  # else it is drawn anew each time
        _, vectors = eigsh(matrix, k, which="LA", v0=start)
    return np.asarray(normalize(vectors.astype(np.float64)))


def median_distance(features: np.ndarray) -> float:
    """The median distance between two different rows, of at most SIGMA_SAMPLE rows spread evenly."""
    rows = features[spread(len(features), SIGMA_SAMPLE)].astype(np.float64)
    distance = euclidean_distances(rows)
    return float(np.median(distance[np.triu_indices(len(rows), 1)]))


def spread(n: int, most: int) -> np.ndarray:
    """Positions of at most `most` of n things, evenly spread, so that every film keeps its share."""
    return np.arange(n) if n <= most else np.linspace(0, n - 1, most).astype(np.int64)


def _kernel(features: np.ndarray, sigma: Sigma) -> np.ndarray:
    """A: (n, n), float64 where LAPACK takes it, else float32; one array, changed in place: it is the memory that counts."""
    width = median_distance(features) if sigma == "median" else sigma
    if width <= 0:
        raise ValueError(
            "half of the feature vectors or more are equal, so the median distance is 0: the encoder has collapsed; give sigma=NUMBER "
            "to cluster them all the same"
        )
    kind = np.float64 if len(features) <= DENSE else np.float32
    matrix: np.ndarray = euclidean_distances(features.astype(kind, copy=False), squared=True)
    matrix /= kind(-2 * width**2)
    np.exp(matrix, out=matrix)
    np.fill_diagonal(matrix, 0)
    return matrix


def _normalised(matrix: np.ndarray) -> np.ndarray:
    """D^-1/2 A D^-1/2, in place."""
    degree = matrix.sum(axis=1, dtype=np.float64)
    alone = np.flatnonzero(degree < np.finfo(matrix.dtype).tiny)
    if len(alone):
        raise ValueError(
            f"sigma is too small: {len(alone)} clips have no neighbour at all; give a larger one, or median"
        )
    root = (1 / np.sqrt(degree)).astype(matrix.dtype)
    matrix *= root[:, None]
    matrix *= root
    return matrix


def _check_number(features: np.ndarray, k: int) -> None:
    if k > len(features):
        raise ValueError(f"{k} clusters of {len(features)} clips: give more clips, or clusters={len(features)} at most")
