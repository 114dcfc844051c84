"""Clusters of features that are known to have some: the same from a sample as from all, whatever the order of the films."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fbm_dist.evaluation.embedding.clusters import Found, learn, look, of_different_films
from fbm_dist.evaluation.embedding.config import Clusters, Map, Page
from fbm_dist.evaluation.embedding.map import colours, draw_map, plane
from fbm_dist.evaluation.embedding.reader import ABOUT, FORMAT, Embeddings, features, open_embeddings

SIZES = (300, 150, 60)  # of three far clusters; films of ten clips, one cluster after the other: the worst order
PART = 64


@pytest.fixture(scope="module")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Embeddings, np.ndarray]:
    """Two groups of features in files of 64 clips, and the true cluster of each clip."""
    chance = np.random.default_rng(0)
    which = np.repeat(np.arange(len(SIZES)), SIZES)
    centres = chance.normal(0, 3, (3, 12))
    values = (centres[which] + chance.normal(0, 0.5, (len(which), 12))).astype(np.float32)
    values[:, 3] = 7.0  # says nothing
    folder = tmp_path_factory.mktemp("blobs")
    (folder / "embeddings").mkdir()
    about = {"format": FORMAT, "clips": len(which), "part_clips": PART, "groups": {"still": 8, "moving": 4}}
    table = pa.table(
        {
            "key": [f"clip-{i:04d}" for i in range(len(which))],
            "film": [f"film-{i // 10}" for i in range(len(which))],
            "shard": ["s"] * len(which),
            "still": pa.FixedSizeListArray.from_arrays(pa.array(values[:, :8].reshape(-1)), 8),
            "moving": pa.FixedSizeListArray.from_arrays(pa.array(values[:, 8:].reshape(-1)), 4),
        }
    ).replace_schema_metadata({ABOUT: json.dumps(about).encode()})
    for part, first in enumerate(range(0, len(which), PART)):
        path = folder / "embeddings" / f"part-{part:05d}.parquet"
        pq.write_table(table.slice(first, PART), path, row_group_size=25)
    return open_embeddings(folder), which


def seen(
    embeddings: Embeddings, settings: Clusters, folder: Path, page: Page | None = None
) -> tuple[Found, np.ndarray]:
    found = look(embeddings, learn(embeddings, settings, 0), page or Page(), 0, folder)
    return found, pq.read_table(folder / "clusters.parquet")["cluster"].to_numpy()


@pytest.mark.parametrize("scale", ["standard", "l2"])
@pytest.mark.parametrize("sample", [40, 20_000])
def test_the_clusters_are_found(blobs: tuple[Embeddings, np.ndarray], tmp_path: Path, scale: str, sample: int) -> None:
    embeddings, which = blobs
    settings = Clusters.model_validate_json(json.dumps({"number": 3, "scale": scale, "sample": sample}))
    found, assigned = seen(embeddings, settings, tmp_path)
    assert (assigned == which).all(), "numbered from the largest to the smallest"
    assert [(c.size, c.films) for c in found.clusters] == [(300, 30), (150, 15), (60, 6)]
    assert (found.clips, found.films) == (510, 51)
    assert 0.7 < found.explained <= 1


def test_all_clips_move_the_centres_not_the_sample_alone(blobs: tuple[Embeddings, np.ndarray]) -> None:
    """From a sample, then over everything, as good as k-means over everything."""
    embeddings, which = blobs
    small = learn(embeddings, Clusters(number=3, sample=30), 0)
    for number in range(3):
        mean = np.concatenate([small.space.of(t) for t in embeddings.batches(small.space.columns)])[
            which == number
        ].mean(0)
        assert np.abs(small.centres[number] - mean).max() < 0.05


def test_what_is_shown_of_a_cluster(blobs: tuple[Embeddings, np.ndarray], tmp_path: Path) -> None:
    embeddings, _ = blobs
    settings = Clusters(number=3, group="moving")
    found, assigned = seen(embeddings, settings, tmp_path, Page(clusters=2, central=4, random=5, queries=2))
    distance = pq.read_table(tmp_path / "clusters.parquet")["distance"].to_numpy()
    for cluster in found.clusters[:2]:
        own = np.flatnonzero(assigned == cluster.number)
        assert cluster.distance == pytest.approx(distance[own].mean(), rel=1e-5)
        places = [int(row["key"][-4:]) for row in cluster.central]
        assert places[0] == own[distance[own].argmin()]
        assert len({place // 10 for place in places}) == 4, "of different films"
        drawn = [int(row["key"][-4:]) for row in cluster.random]
        assert len(drawn) == 5
        assert set(drawn) <= set(own.tolist())
        assert not set(drawn) & set(places)
    assert not found.clusters[2].central, "the third is counted, not shown"


def test_a_column_that_never_changes_is_not_blown_up(blobs: tuple[Embeddings, np.ndarray]) -> None:
    embeddings, _ = blobs
    space = learn(embeddings, Clusters(number=3), 0).space
    values = np.concatenate([space.of(table) for table in embeddings.batches(space.columns)])
    np.testing.assert_allclose(values[:, 3], 0, atol=1e-3)
    np.testing.assert_allclose(np.delete(values.std(axis=0), 3), 1, atol=1e-3)


def test_rows_are_taken_from_their_files(blobs: tuple[Embeddings, np.ndarray]) -> None:
    embeddings, _ = blobs
    rows = np.array([0, 24, 25, 63, 64, 300, 509])
    taken = embeddings.take(rows, ["key", "still", "moving"])
    assert taken["key"].to_pylist() == [f"clip-{row:04d}" for row in rows]
    everything = embeddings.dataset().to_table()
    assert (features(taken, "all") == features(everything, "all")[rows]).all()


def test_clusters_are_numbered_by_all_clips_not_by_the_sample(
    blobs: tuple[Embeddings, np.ndarray], tmp_path: Path
) -> None:
    """A handful of clips says little about which cluster is large."""
    for seed in range(4):
        model = learn(blobs[0], Clusters(number=5, sample=6), seed)
        sizes = [cluster.size for cluster in look(blobs[0], model, Page(queries=0), seed, tmp_path).clusters]
        assert sizes == sorted(sizes, reverse=True)


def test_no_more_clusters_than_clips(blobs: tuple[Embeddings, np.ndarray], tmp_path: Path) -> None:
    embeddings = Embeddings(blobs[0].paths[-1:], blobs[0].about)  # 62 clips
    found, assigned = seen(embeddings, Clusters(number=100), tmp_path)
    assert len(found.clusters) == len(embeddings) == 62
    assert len(set(assigned.tolist())) == 62


def test_a_sample_smaller_than_the_clusters_is_refused() -> None:
    with pytest.raises(ValueError, match=r"clusters\.sample=10: 11 clusters .* set it to 11 or more"):
        Clusters(number=11, sample=10)


def test_a_second_clip_of_a_film_only_where_films_are_few() -> None:
    rows = [{"key": i, "film": film} for i, film in enumerate("aaabca")]
    assert [row["key"] for row in of_different_films(rows, 3)] == [0, 3, 4]
    assert [row["key"] for row in of_different_films(rows, 5)] == [0, 1, 2, 3, 4]
    assert of_different_films([], 3) == []


@pytest.mark.parametrize("method", ["t-sne", "pca"])
def test_the_map_keeps_clusters_together(method: str) -> None:
    chance = np.random.default_rng(0)
    which = np.arange(60) % 2
    values = (chance.normal(0, 0.2, (60, 8)) + 4 * which[:, None]).astype(np.float32)
    points, named = plane(values, Map.model_validate_json(json.dumps({"method": method})), 0)
    assert named.lower() == method
    first, second = points[which == 0], points[which == 1]
    apart = np.linalg.norm(first.mean(axis=0) - second.mean(axis=0))
    assert apart > 2 * max(first.std(axis=0).max(), second.std(axis=0).max())


def test_maps_of_little(blobs: tuple[Embeddings, np.ndarray], tmp_path: Path) -> None:
    """A handful of clips, all of them alike, make a map too."""
    points, method = plane(np.ones((3, 8), np.float32), Map(), 0)
    assert (points.shape, method) == ((3, 2), "PCA")
    assert np.isfinite(points).all()
    embeddings, _ = blobs
    told = draw_map(embeddings, learn(embeddings, Clusters(number=3), 0), Map(clips=30), 0, tmp_path / "map.png")
    assert told.startswith("30 of 510 clips by t-SNE")
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    assert len(set(colours(40))) == 40
