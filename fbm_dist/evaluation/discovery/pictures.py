"""Pictures of what was discovered: a map of the clips by t-SNE (Figure 6), and sheets of the purest clusters (Figures 5 and 7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from data_tools.dataset import read_manifest
from data_tools.shards import read_sample
from fbm_dist.data.decoding.frames import FrameReader, Stored
from fbm_dist.data.decoding.region import region
from fbm_dist.data.order.draw import Draw
from fbm_dist.evaluation.labelled.clips import LabelledClips
from fbm_dist.evaluation.measures.entropy import cluster_entropies
from fbm_dist.evaluation.report.figure import canvas, save
from fbm_dist.schema import Data

SIDE = 64  # pixels of a picture
MOST_DIMENSIONS = 50  # principal components that t-SNE starts from, as its author advises
PERPLEXITY = 30.0
CELLS = 20  # of the map of pictures, a side: at most one picture each
NAMED = 20  # classes up to which colours differ enough to have a legend
MEMBERS = 6  # clips of a cluster on the sheet, as in Figure 5
CUT = 22  # characters of a class name
CENTRE = Draw(window=0.5, reverse=0.0, mirror=0.0)


@dataclass(frozen=True)
class Pure:
    """A cluster of the sheet.

    Attributes:
        number, size: the cluster and how many clips it has.
        entropy: of its classes, in bits.
        members: positions of MEMBERS of its clips, drawn at random; fewer where it is smaller.
    """

    number: int
    size: int
    entropy: float
    members: np.ndarray


def middle_frames(data: Data, keys: Sequence[str]) -> dict[str, np.ndarray]:
    """The middle frame of these clips: uint8 (SIDE, SIDE, 3), by key; a clip that cannot be decoded is missing.

    No other clip is read. The square is cut as the encoder's clips are, from the middle.
    """
    spec = data.clip.pictures
    manifest = read_manifest(data.path, data.snapshot)
    rows = manifest.filter(pc.is_in(manifest["key"], pa.array(keys, pa.string()))).to_pylist()
    reader, found = FrameReader(), {}
    for row in rows:
        square = np.empty((3, SIDE, SIDE), np.uint8)
        (height, width), fps = row["size"], (row["fps"][0], row["fps"][1])
        stored, middle = Stored(row["codec"], height, width, fps), (row["num_frames"] - 1) // 2
        try:
            video = read_sample(data.path, row).video
            reader.read(video, [middle], stored, [square], region(spec, height, width, CENTRE))
        except ValueError:
            continue
        found[row["key"]] = square.transpose(1, 2, 0)
    return found


def purest(target: np.ndarray, cluster: np.ndarray, most: int) -> list[Pure]:
    """The clusters of the least entropy, larger ones first among equals.

    A cluster of few clips is pure by chance: those with fewer than MEMBERS come in only where there are no others.

    Args:
        target: (n,) class of each clip; `cluster`: (n,) its cluster.
        most: so many.
    """
    found = cluster_entropies(target, cluster)
    order = np.lexsort((found.cluster, -found.size, found.entropy.round(9), found.size < MEMBERS))
    random = np.random.default_rng(0)
    out = []
    for i in order[:most]:
        members = np.flatnonzero(cluster == found.cluster[i])
        drawn = random.choice(members, min(MEMBERS, len(members)), replace=False)
        out.append(Pure(int(found.cluster[i]), int(found.size[i]), float(found.entropy[i]), drawn))
    return out


def sheet(
    clips: LabelledClips, chosen: Sequence[Pure], frames: Mapping[str, np.ndarray], title: str, path: Path
) -> Path:
    """A row a cluster: its entropy and size, and members under their class."""
    figure = canvas(1.25 * MEMBERS + 1.1, 1.45 * len(chosen) + 0.5)
    figure.suptitle(title, fontsize="medium")
    panels = figure.subplots(len(chosen), MEMBERS + 1, squeeze=False, width_ratios=[0.75, *[1.0] * MEMBERS])
    for row, pure in zip(panels, chosen, strict=True):
        for panel in row:
            panel.set_axis_off()
        # a cluster of one class has the entropy 0, which floating point may call -0
        told = f"cluster {pure.number}\n{pure.size} clips\n{abs(pure.entropy):.2f} bits"
        row[0].text(0.0, 0.5, told, va="center", fontsize="small", transform=row[0].transAxes)
        for panel, i in zip(row[1:], pure.members, strict=False):
            if clips.key[i] in frames:
                panel.imshow(frames[clips.key[i]])
            panel.set_title(_short(clips.classes[clips.target[i]]), fontsize="x-small")
    return save(figure, path)


def placed(features: np.ndarray) -> np.ndarray:
    """Barnes-Hut t-SNE with a fixed seed, from principal components: (n, 2) in [0, 1].

    Args:
        features: float (n, d), n at least 4.
    """
    n, d = features.shape
    reduced = PCA(min(MOST_DIMENSIONS, n, d), svd_solver="full" if n * d < 1e7 else "randomized", random_state=0)
    points = reduced.fit_transform(features.astype(np.float64))
    init = "pca" if points.shape[1] > 1 else "random"
    found = TSNE(2, perplexity=min(PERPLEXITY, (n - 1) / 3), init=init, random_state=0).fit_transform(points)
    low, high = found.min(axis=0), found.max(axis=0)
    return np.asarray((found - low) / np.maximum(high - low, 1e-12), dtype=np.float64)


def map_of_points(place: np.ndarray, clips: LabelledClips, title: str, path: Path) -> Path:
    """A point a clip, coloured by class."""
    figure = canvas(8, 6.5)
    axes = figure.subplots()
    colours = _colours(len(clips.classes))
    for number in np.unique(clips.target).tolist():
        own = clips.target == number
        axes.scatter(
            place[own, 0], place[own, 1], s=14, color=colours[number], label=_short(clips.classes[number]), linewidths=0
        )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, fontsize="medium")
    _legend(figure, clips)
    return save(figure, path)


def map_of_pictures(
    place: np.ndarray, clips: LabelledClips, frames: Mapping[str, np.ndarray], title: str, path: Path
) -> Path:
    """The middle frames where their points are, framed in the colour of their class; one a cell, the nearest to its centre."""
    colours = (np.array(_colours(len(clips.classes))) * 255).astype(np.uint8)
    image = np.full((CELLS * SIDE, CELLS * SIDE, 3), 255, np.uint8)
    for (x, y), i in seats(place).items():
        frame = frames.get(clips.key[i])
        if frame is not None:
            left, top = x * SIDE, (CELLS - 1 - y) * SIDE  # a picture's rows go down, the map's y up
            image[top : top + SIDE, left : left + SIDE] = colours[clips.target[i]]
            image[top + 3 : top + SIDE - 3, left + 3 : left + SIDE - 3] = frame[3:-3, 3:-3]
    figure = canvas(11.3, 10)
    axes = figure.subplots()
    axes.imshow(image, interpolation="antialiased")
    axes.set_axis_off()
    axes.set_title(title, fontsize="medium")
    _legend(figure, clips)
    return save(figure, path)


def seats(place: np.ndarray) -> dict[tuple[int, int], int]:
    """Cell (x, y) of the map of pictures -> position of the clip that is nearest to its centre, where there is any."""
    cell = np.minimum((place * CELLS).astype(int), CELLS - 1)
    off = np.linalg.norm(place * CELLS - cell - 0.5, axis=1)
    found: dict[tuple[int, int], int] = {}
    for i in np.argsort(off, kind="stable").tolist():
        found.setdefault((int(cell[i, 0]), int(cell[i, 1])), i)
    return found


def _legend(figure: Figure, clips: LabelledClips) -> None:
    """Which colour is which class, where there are few enough to tell them apart."""
    colours, there = _colours(len(clips.classes)), np.unique(clips.target).tolist()
    if len(there) <= NAMED:
        patches = [Patch(color=colours[number], label=_short(clips.classes[number])) for number in there]
        figure.legend(handles=patches, loc="outside right upper", fontsize="small")


def _colours(number: int) -> list[tuple[float, float, float]]:
    if number <= 10:
        return [to_rgb(f"C{i}") for i in range(number)]
    name = "tab20" if number <= NAMED else "gist_rainbow"
    scale = colormaps[name].resampled(number)
    return [to_rgb(scale(i)) for i in range(number)]


def _short(name: str) -> str:
    return name if len(name) <= CUT else f"{name[: CUT - 2]}.."
