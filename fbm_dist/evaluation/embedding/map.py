"""The map of a collection: a sample of its clips as points of a plane, near each other where their features are, coloured by cluster."""

from __future__ import annotations

import colorsys
from pathlib import Path

import numpy as np
from jaxtyping import Float
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.metrics.pairwise import euclidean_distances

from fbm_dist.evaluation.embedding.clusters import Model, draw
from fbm_dist.evaluation.embedding.config import Map
from fbm_dist.evaluation.embedding.reader import Embeddings
from fbm_dist.evaluation.report.figure import canvas, save

FEWEST = 10  # clips that t-SNE can say something about
BEFORE = 50  # principal components that t-SNE starts from (van der Maaten and Hinton, 2008, section 4.2: 30)
PERPLEXITY = 30.0
GOLDEN = 0.618034  # of a turn of hue from one cluster's colour to the next


def draw_map(embeddings: Embeddings, model: Model, settings: Map, seed: int, path: Path) -> str:
    """Write the figure; returns one sentence on what it shows."""
    rows = draw(len(embeddings), settings.clips, seed, "map")
    values = model.space.of(embeddings.take(rows, model.space.columns))
    which, _ = model.assign(values)
    points, method = plane(values, settings, seed)
    figure = canvas(8, 6)
    axes = figure.subplots()
    shades = np.array(colours(len(model.centres)))
    axes.scatter(points[:, 0], points[:, 1], s=max(4, min(40, 6000 / len(points))), c=shades[which], linewidths=0)
    for number in np.unique(which).tolist():
        own = points[which == number]
        place = own[euclidean_distances(own).sum(axis=1).argmin()]  # one of its points: others may lie in between
        box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.7}
        axes.annotate(str(number), tuple(place), fontsize=9, ha="center", va="center", bbox=box)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color("#cccccc")
    save(figure, path)
    sampled = "All" if len(rows) == len(embeddings) else f"{len(rows):,} of"
    return f"{sampled} {len(embeddings):,} clips by {method} of their features; numbers and colours are the clusters'."


def plane(values: Float[np.ndarray, "n d"], settings: Map, seed: int) -> tuple[Float[np.ndarray, "n 2"], str]:
    """Points, and the method's name: t-SNE of the first principal components, or the first two of them."""
    if not np.ptp(values, axis=0).any():  # one clip, or all alike
        return np.zeros((len(values), 2), np.float32), "PCA"
    parts = PCA(min(BEFORE, *values.shape), random_state=seed).fit_transform(values)
    if settings.method == "pca" or len(values) < FEWEST or parts.shape[1] < 2:
        return np.pad(parts, ((0, 0), (0, 2)))[:, :2], "PCA"
    perplexity = min(PERPLEXITY, (len(values) - 1) / 3)
    return TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(parts), "t-SNE"


def colours(number: int) -> list[str]:
    """So many colours, any two neighbours far apart, as #rrggbb: on white and on black."""
    found = []
    for i in range(number):
        rgb = colorsys.hls_to_rgb((0.58 + i * GOLDEN) % 1, (0.45, 0.6, 0.35)[i % 3], 0.6)
        found.append("#" + "".join(f"{round(255 * part):02x}" for part in rgb))
    return found
