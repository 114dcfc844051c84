"""How well clusters tell classes: conditional entropy in bits (Redondo-Cabrera and Lopez-Sastre, 2018, equation 4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import entropy
from sklearn.metrics import normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix


@dataclass(frozen=True)
class ClusterEntropies:
    """The clusters that occur, by number; arrays of one length.

    Attributes:
        cluster: its number.
        size: its members.
        entropy: of its members' classes, in bits; 0: all of one class.
    """

    cluster: np.ndarray
    size: np.ndarray
    entropy: np.ndarray


def cluster_entropies(target: np.ndarray, cluster: np.ndarray) -> ClusterEntropies:
    """Entropy of the classes within each cluster.

    Args:
        target: (n,) the true class of each member, integers.
        cluster: (n,) its cluster, integers.
    """
    table = np.asarray(contingency_matrix(target, cluster))  # classes x clusters; both occur, so no column is empty
    return ClusterEntropies(np.unique(cluster), table.sum(axis=0), np.asarray(entropy(table, base=2, axis=0)))


def conditional_entropy(target: np.ndarray, cluster: np.ndarray) -> float:
    """H(X|Y) = sum_y p(y) sum_x p(x|y) log2 1/p(x|y): the bits that are still missing to know the class X of cluster Y's members.

    0: every cluster is of one class; `class_entropy(target)`: the clusters tell nothing. 2^H is the number of equally
    likely classes that leave one as uncertain. Arguments as `cluster_entropies`.
    """
    found = cluster_entropies(target, cluster)
    return float(found.size @ found.entropy / len(target))


def class_entropy(target: np.ndarray) -> float:
    """H(X) in bits: at most log2 of the number of classes."""
    return float(entropy(np.unique(target, return_counts=True)[1], base=2))


def normalised_information(target: np.ndarray, cluster: np.ndarray) -> float:
    """Mutual information of classes and clusters over the mean of their entropies: 0 nothing in common, 1 the same partition.

    Unlike the conditional entropy it does not fall by itself where there are more clusters.
    """
    return float(normalized_mutual_info_score(target, cluster))
