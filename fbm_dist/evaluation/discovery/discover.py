"""Clusterings of an encoder's feature groups, several times over, and how well they tell the classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fbm_dist.evaluation.discovery.config import Algorithm, Discovery
from fbm_dist.evaluation.measures.clustering import k_means, scaled, spectral_embedding, spread
from fbm_dist.evaluation.measures.entropy import conditional_entropy, normalised_information
from fbm_dist.evaluation.measures.scores import Interval
from fbm_dist.evaluation.report.results import Cell
from fbm_dist.training.monitoring.linear_probe import with_all


@dataclass(frozen=True)
class Clusterings:
    """Several clusterings of the same clips.

    Attributes:
        rows: (m,) positions of the clips that were clustered, among those of the study.
        cluster: (repeats, m) a number below k each.
    """

    rows: np.ndarray
    cluster: np.ndarray

    def entropy(self, target: np.ndarray) -> Cell:
        """Conditional entropy of the classes in bits: mean and standard deviation over the clusterings."""
        return _over_repeats([conditional_entropy(target[self.rows], cluster) for cluster in self.cluster])

    def information(self, target: np.ndarray) -> Cell:
        """Normalised mutual information, likewise."""
        return _over_repeats([normalised_information(target[self.rows], cluster) for cluster in self.cluster])


def collapsed(groups: Mapping[str, np.ndarray]) -> list[str]:
    """The feature groups that are the same for every clip: there is nothing to cluster."""
    return [group for group, values in groups.items() if (values == values[0]).all()]


def prepared(groups: Mapping[str, np.ndarray], settings: Discovery) -> dict[str, np.ndarray]:
    """The named feature groups scaled, and all of them side by side where there are several: float32 (n, d) each."""
    return with_all({group: scaled(values, settings.scale) for group, values in groups.items()})


def discover(
    features: np.ndarray, algorithm: Algorithm, k: int, seeds: Sequence[int], settings: Discovery
) -> Clusterings:
    """Cluster once a seed; the spectral embedding is found once, and k-means on its rows repeated.

    Args:
        features: float32 (n, d), as `prepared` gives them.
        seeds: of k-means.
    Raises:
        ValueError: as `fbm_dist.evaluation.measures.clustering.spectral_embedding`.
    """
    rows = spread(len(features), settings.spectral_clips if algorithm == "spectral" else len(features))
    points = features
    if algorithm == "spectral":
        points = spectral_embedding(features[rows], k, sigma=settings.sigma)
    return Clusterings(rows, np.stack([k_means(points, k, seed, starts=settings.starts) for seed in seeds]))


def assigned_at_random(rows: np.ndarray, k: int, seeds: Sequence[int]) -> Clusterings:
    """Every clip to a cluster drawn at random: what clusters say that know nothing (the paper's baseline RANDOM).

    Args:
        rows: (m,) the clips that the clusterings are of which it stands beside: its entropy falls with their number.
    """
    drawn = [np.random.default_rng(seed).integers(k, size=len(rows)) for seed in seeds]
    return Clusterings(rows, np.stack(drawn))


def joined(several: Sequence[Clusterings]) -> Clusterings:
    """Clusterings of the same clips, of several random initialisations."""
    return Clusterings(several[0].rows, np.concatenate([one.cluster for one in several]))


def _over_repeats(values: Sequence[float]) -> Cell:
    """A mean without interval; the deviation is that of the sample, none where there is one value."""
    spread_ = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Cell(Interval(float(np.mean(values)), None, None), spread=spread_)
