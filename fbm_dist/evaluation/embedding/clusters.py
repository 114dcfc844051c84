"""Clusters and nearest neighbours of a collection of any size: learnt from a sample, then one look at every clip, a batch at a time."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32, Float64, Int64
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import pairwise_distances_argmin_min
from sklearn.preprocessing import normalize

from data_tools.places import atomic
from data_tools.report.pages.choice import Pool
from fbm_dist.evaluation.embedding.config import Clusters, Page
from fbm_dist.evaluation.embedding.reader import ALL, Embeddings, features

STARTS = 4  # k-means++ starts on the sample
SPARE = 8  # times as many clips as are shown are looked at, so that they can be of different films
SHOWN = ("key", "film", "shard")  # what it takes to show a clip
ASSIGNED = pa.schema([("key", pa.string()), ("cluster", pa.int32()), ("distance", pa.float32())])
NEAR = pa.schema(
    [
        ("query", pa.string()),
        ("query_film", pa.string()),
        ("rank", pa.int32()),
        ("key", pa.string()),
        ("film", pa.string()),
        ("similarity", pa.float32()),
    ]
)


@dataclass(frozen=True)
class Space:
    """The features that clips are compared by: a group, scaled.

    Attributes:
        columns: of the parquet files.
        mean, scale: of each column, of the sample; None: every clip is scaled to length 1 instead.
    """

    columns: tuple[str, ...]
    group: str
    mean: Float32[np.ndarray, " d"] | None = None
    scale: Float32[np.ndarray, " d"] | None = None

    def of(self, table: pa.Table) -> Float32[np.ndarray, "n d"]:
        """Scaled features of the clips of a table."""
        values = features(table.select(self.columns), self.group)
        if self.mean is None:
            return np.asarray(normalize(values), np.float32)
        return (values - self.mean) / self.scale


@dataclass(frozen=True)
class Model:
    """Cluster centres in a space; the first cluster is the one that most clips are in."""

    space: Space
    centres: Float32[np.ndarray, "k d"]

    def assign(self, values: Float32[np.ndarray, "n d"]) -> tuple[Int64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
        """The nearest centre of each clip, and its Euclidean distance."""
        which, distance = pairwise_distances_argmin_min(values, self.centres)
        return which.astype(np.int64), distance.astype(np.float64)


@dataclass
class Cluster:
    """What is known of one cluster.

    Attributes:
        size, films: clips, and the films that they come from (a film whose clips do not stand together counts more than once).
        distance: mean Euclidean distance of its clips to the centre.
        central, random: rows with key, film, shard, distance; empty where it is not shown.
    """

    number: int
    size: int = 0
    films: int = 0
    distance: float = 0.0
    central: list[dict[str, Any]] = field(default_factory=list)
    random: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Query:
    """A clip and the nearest clips of other films: rows, and their cosine similarities, falling."""

    row: dict[str, Any]
    near: list[tuple[float, dict[str, Any]]]


@dataclass
class Found:
    """A whole look at a collection.

    Attributes:
        explained: share of the variance (sum of squared distances from the mean) that lies between the clusters.
    """

    clusters: list[Cluster]
    queries: list[Query]
    clips: int
    films: int
    explained: float


def learn(embeddings: Embeddings, settings: Clusters, seed: int) -> Model:
    """k-means++ and Lloyd on a sample; where there are more clips, mini-batch k-means (Sculley, 2010) goes on over all of them.

    The sample's clips count as the first batch, so the order of the collection (film by film) draws no centre away.
    A last pass counts, for the clusters' numbers. There are no more clusters than clips.

    Raises:
        ValueError: no such group of features.
    """
    groups = embeddings.groups
    if settings.group != ALL and settings.group not in groups:
        raise ValueError(f"clusters.group={settings.group}: the encoder gives {', '.join(groups)}; choose one, or all")
    number = min(settings.number, len(embeddings))
    columns = tuple(groups) if settings.group == ALL else (settings.group,)
    rows = draw(len(embeddings), settings.sample, seed, "sample")
    table = embeddings.take(rows, columns)
    space = Space(columns, settings.group)
    if settings.scale == "standard":
        values = features(table, settings.group)
        spread = values.std(axis=0, dtype=np.float64)
        # a column that says nothing: rounding must not be blown up to unit variance
        still = spread <= 1e-6 * np.abs(values).max(axis=0, initial=0.0)
        scale = np.where(still, 1.0, spread).astype(np.float32)
        space = Space(columns, settings.group, values.mean(axis=0, dtype=np.float64).astype(np.float32), scale)
    values = space.of(table)
    with warnings.catch_warnings():  # fewer different clips than clusters: some stay empty, which is right
        warnings.simplefilter("ignore", ConvergenceWarning)
        start = KMeans(number, n_init=STARTS, random_state=seed).fit(values)
    found = Model(space, np.asarray(start.cluster_centers_, np.float32))
    sizes = np.bincount(start.labels_, minlength=number)
    if len(rows) < len(embeddings):
        model = MiniBatchKMeans(number, init=found.centres, n_init=1, reassignment_ratio=0.0, compute_labels=False)
        for batch in _and_all(values, embeddings, space):
            model.partial_fit(batch)
        found = Model(space, np.asarray(model.cluster_centers_, np.float32))
        sizes = np.zeros(number, np.int64)  # where the centres have come to rest: the sample's would be others
        for table in embeddings.batches(columns):
            sizes += np.bincount(found.assign(space.of(table))[0], minlength=number)
    return Model(space, found.centres[np.argsort(-sizes, kind="stable")])


def look(embeddings: Embeddings, model: Model, page: Page, seed: int, folder: Path) -> Found:
    """One pass over all clips: clusters.parquet and neighbours.parquet in `folder`, and what the page shows.

    Work is O(clips x (clusters + queries) x length of the features); memory does not grow with the number of clips.
    """
    numbers = np.random.default_rng([seed, 1])
    seen = _Seen(model, page)
    queries = _Queries(embeddings, model.space, page, seed)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic(folder / "clusters.parquet") as file, pq.ParquetWriter(file, ASSIGNED, compression="zstd") as writer:
        for table in embeddings.batches([*SHOWN, *model.space.columns]):
            values, known = model.space.of(table), table.select(SHOWN)
            which, distance = model.assign(values)
            columns = {"key": known["key"], "cluster": which.astype(np.int32), "distance": distance.astype(np.float32)}
            writer.write_table(pa.table(columns, schema=ASSIGNED))
            seen.add(known, values, which, distance, numbers.random(len(which)))
            queries.add(known, values)
    found = seen.found(queries.found())
    near = [
        (q.row["key"], q.row["film"], rank, row["key"], row["film"], similarity)
        for q in found.queries
        for rank, (similarity, row) in enumerate(q.near, 1)
    ]
    with atomic(folder / "neighbours.parquet") as file:
        named = [dict(zip(NEAR.names, values, strict=True)) for values in near]
        pq.write_table(pa.Table.from_pylist(named, schema=NEAR), file, compression="zstd")
    return found


def draw(clips: int, number: int, seed: int, what: str) -> Int64[np.ndarray, " n"]:
    """Up to `number` different places among so many clips, ascending; `what` keeps several draws apart."""
    chance = np.random.default_rng([seed, *what.encode()])
    return np.sort(chance.choice(clips, min(number, clips), replace=False, shuffle=False)).astype(np.int64)


def _and_all(values: np.ndarray, embeddings: Embeddings, space: Space) -> Iterator[np.ndarray]:
    yield values
    for table in embeddings.batches(space.columns):
        yield space.of(table)


class _Seen:
    """Counts, and the clips to show, of the clusters as the clips pass."""

    def __init__(self, model: Model, page: Page) -> None:
        self._page = page
        self._clusters = [Cluster(number) for number in range(len(model.centres))]
        shown = min(page.clusters, len(self._clusters))
        self._central = [Pool(SPARE * page.central) for _ in range(shown)]
        self._random = [Pool(page.random + page.central) for _ in range(shown)]
        self._clips = self._films = 0
        self._last, self._of_last = (
            "",
            set[int](),
        )  # the film of the last batch's end, and the clusters it has been met in
        self._sum = np.zeros(model.centres.shape[1])
        self._squares = self._within = 0.0

    def add(
        self, known: pa.Table, values: np.ndarray, which: np.ndarray, distance: np.ndarray, numbers: np.ndarray
    ) -> None:
        """Take the clips of a batch."""
        self._clips += len(which)
        self._sum += values.sum(axis=0, dtype=np.float64)
        self._squares += float(np.einsum("nd,nd->", values, values, dtype=np.float64))
        self._within += float(np.square(distance).sum())
        sizes = np.bincount(which, minlength=len(self._clusters))
        sums = np.bincount(which, weights=distance, minlength=len(self._clusters))
        for number in np.flatnonzero(sizes).tolist():
            cluster = self._clusters[number]
            cluster.size += int(sizes[number])
            cluster.distance += float(sums[number])
            if number < len(self._central):
                rows = np.flatnonzero(which == number)
                self._central[number].offer(known, rows, distance)
                self._random[number].offer(known, rows, numbers)
        self._count_films(known["film"].to_pylist(), which.tolist())

    def _count_films(self, films: list[str], which: list[int]) -> None:
        for film, number in zip(films, which, strict=True):
            if film != self._last:
                self._last, self._of_last = film, set()
                self._films += 1
            if number not in self._of_last:
                self._of_last.add(number)
                self._clusters[number].films += 1

    def found(self, queries: list[Query]) -> Found:
        """All of it."""
        for cluster in self._clusters:
            cluster.distance /= max(1, cluster.size)
        for cluster, central, drawn in zip(self._clusters, self._central, self._random, strict=False):
            near = [row | {"distance": number} for number, row in central.drawn]
            cluster.central = of_different_films(near, self._page.central)
            there = {row["key"] for row in cluster.central}
            cluster.random = [row for row in drawn.rows if row["key"] not in there][: self._page.random]
        variance = self._squares - float(np.square(self._sum).sum()) / max(1, self._clips)
        explained = 1 - self._within / variance if variance > 0 else 1.0
        return Found(self._clusters, queries, self._clips, self._films, explained)


class _Queries:
    """The nearest clips of other films to some clips: exact, by cosine, as the clips pass."""

    def __init__(self, embeddings: Embeddings, space: Space, page: Page, seed: int) -> None:
        places = draw(len(embeddings), SPARE * page.queries, seed, "queries")
        table = embeddings.take(places, [*SHOWN, *space.columns]) if len(places) else None
        drawn = [] if table is None else table.select(SHOWN).to_pylist()
        order = np.random.default_rng([seed, 2]).permutation(len(drawn)).tolist()
        self._rows = of_different_films([drawn[i] | {"place": i} for i in order], page.queries)
        self._pools = [Pool(page.neighbours) for _ in self._rows]
        self._values = np.zeros((0, 0), np.float32)
        if table is not None:
            self._values = normalize(space.of(table))[[row["place"] for row in self._rows]]

    def add(self, known: pa.Table, values: np.ndarray) -> None:
        """Compare with the clips of a batch."""
        if not self._rows:
            return
        films = np.array(known["film"].to_pylist())
        far = -(self._values @ normalize(values).T).astype(np.float64)
        for row, pool, numbers in zip(self._rows, self._pools, far, strict=True):
            pool.offer(known, np.flatnonzero(films != row["film"]), numbers)

    def found(self) -> list[Query]:
        """In the order in which they were drawn."""
        return [
            Query({name: row[name] for name in SHOWN}, [(-number, near) for number, near in pool.drawn])
            for row, pool in zip(self._rows, self._pools, strict=True)
        ]


def of_different_films(rows: list[dict[str, Any]], number: int) -> list[dict[str, Any]]:
    """The first `number` rows, but a second one of a film only where there are not enough films; in their order."""
    seen: set[str] = set()
    rank = []
    for place, row in enumerate(rows):
        rank.append((row["film"] in seen, place))
        seen.add(row["film"])
    return [rows[place] for _, place in sorted(sorted(rank)[:number], key=lambda entry: entry[1])]
