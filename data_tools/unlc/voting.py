"""Consensus voting: v <- T v, each frame's strongest region kept at 1 (Faktor & Irani 2014, section 3.2)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32
from scipy.sparse import csr_matrix

from data_tools.unlc.config import Voting


def consensus(
    votes: Float32[np.ndarray, "k"], graph: csr_matrix, starts: np.ndarray, settings: Voting
) -> Float32[np.ndarray, "k"]:
    """The votes after `iterations` rounds, in [0, 1].

    Args:
        votes: first votes of the shot's regions, >= 0, in the frames' order.
        graph: row-stochastic, k x k.
        starts: index of each frame's first region; every frame has at least one.
    """
    counts = np.diff(np.append(starts, len(votes)))
    first = votes
    for _ in range(settings.iterations):
        votes = graph @ votes
        if settings.restart:
            votes = (1 - settings.restart) * votes + settings.restart * first
        votes = votes / np.repeat(_divisors(np.maximum.reduceat(votes, starts)), counts)
    return votes


def _divisors(largest: np.ndarray) -> np.ndarray:
    # a frame that no vote has reached stays at 0, also where the largest is too small to divide by
    return np.where(largest > np.finfo(np.float32).tiny, largest, np.float32(1))
