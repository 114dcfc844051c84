"""The graph of the vote: nearest neighbours among a shot's regions, sparse and row-stochastic (Faktor & Irani 2014, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Int32
from scipy.sparse import csr_matrix

from data_tools.unlc.config import Graph


def consensus_graph(descriptors: Sequence[Float32[np.ndarray, "_ d"]], settings: Graph) -> csr_matrix:
    """T of v <- T v over all k regions of the shot, in the frames' order: k x k, float32, every row sums to 1.

    Row r holds the `neighbours` nearest of r (Euclidean, itself included) among all the regions of the window around its frame, weighted
    exp(-d^2 / bandwidth). Exact: one matrix product a frame. Where the window has fewer regions, all of them.
    """
    starts = np.cumsum([0, *(len(block) for block in descriptors)])
    blocks = [_frame_rows(i, descriptors, starts, settings) for i in range(len(descriptors))]
    counts = np.concatenate([np.full(len(columns), columns.shape[1]) for columns, _ in blocks])
    pointers = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    columns = np.concatenate([columns.ravel() for columns, _ in blocks])
    weights = np.concatenate([weights.ravel() for _, weights in blocks])
    graph = csr_matrix((weights, columns, pointers), shape=(int(starts[-1]), int(starts[-1])))
    graph.sort_indices()
    return graph


def _frame_rows(
    index: int, descriptors: Sequence[Float32[np.ndarray, "_ d"]], starts: np.ndarray, settings: Graph
) -> tuple[Int32[np.ndarray, "n m"], Float32[np.ndarray, "n m"]]:
    """Columns and normalised weights of one frame's rows."""
    reach = settings.window // settings.stride
    frames = [index + step * settings.stride for step in range(-reach, reach + 1)]
    frames = [frame for frame in frames if 0 <= frame < len(descriptors)]
    own = descriptors[index]
    others = np.concatenate([descriptors[frame] for frame in frames])
    columns = np.concatenate([np.arange(starts[frame], starts[frame + 1], dtype=np.int32) for frame in frames])
    # |a - b|^2 = |a|^2 + |b|^2 - 2 ab; rounding may leave it slightly below 0
    distances = own @ others.T
    distances *= -2
    distances += np.einsum("nd,nd->n", others, others)
    distances += np.einsum("nd,nd->n", own, own)[:, None]
    np.maximum(distances, 0, out=distances)
    rows = np.arange(len(own))
    itself = rows + int(np.searchsorted(columns, starts[index]))
    distances[rows, itself] = -1  # rounding must not push a region out of its own neighbourhood
    count = min(settings.neighbours, distances.shape[1])
    if count < distances.shape[1]:
        nearest = np.argpartition(distances, count - 1, axis=1)[:, :count]
    else:
        nearest = np.broadcast_to(np.arange(count), distances.shape)
    squared = np.maximum(np.take_along_axis(distances, nearest, 1), 0)
    weights = np.exp(squared / np.float32(-settings.bandwidth))
    weights /= weights.sum(1, keepdims=True)
    return columns[nearest], weights
