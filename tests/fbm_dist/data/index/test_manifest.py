"""Manifests into arrays: as the manifests say, whatever the size of a chunk, and in memory that does not grow with the data set."""

from __future__ import annotations

import logging
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.big_index import write_big
from data_tools import places
from data_tools.dataset import read_manifest
from data_tools.shards import ShardStats, finished_shard, shard_file, to_json
from fbm_dist.data.index import arrays, columns, manifest
from fbm_dist.data.index.index import CODECS, Index, name_id
from fbm_dist.data.index.selection import select
from fbm_dist.schema import ClipSpec, Filter
from tests.fbm_dist.data.index.varied import SHARDS, write_varied
from tests.grouped import write_clips
from tests.logs import ours


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """From now on nothing is cached."""

    def change(name: str = "cache") -> None:
        (tmp_path / name).mkdir()
        monkeypatch.setenv("FBM_CACHE", str(tmp_path / name))

    return change


def change_manifest(root: Path, shard: str, change: Callable[[Any], Any]) -> None:
    path = shard_file(root, shard, "parquet")
    pq.write_table(change(pq.read_table(str(path))), str(path))


@pytest.mark.parametrize("size", [1, 9, 1 << 17])
def test_varied_clips_are_what_their_manifests_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Callable[[], None], size: int
) -> None:
    own_cache()
    monkeypatch.setattr(arrays, "CHUNK", size)
    root, _ = write_varied(tmp_path / "data")
    index = Index.open(root)
    told = read_manifest(root).to_pylist()
    assert index.clips == len(index.rows) == len(told) == sum(SHARDS)
    for number, (row, clip) in enumerate(zip(index.rows, told, strict=True)):
        assert index.key(number) == clip["key"]
        members = {member["extension"]: (member["offset"], member["size"]) for member in clip["members"]}
        for name, extension in (("mask", "mask.png"), ("truth", "truth.png")):
            assert (row[name], row[f"{name}_size"]) == members.get(extension, (0, 0))
        assert (row["video"], row["video_size"]) == members["png" if clip["codec"] == "png" else "mp4"]
        assert (row["frames"], row["start"], CODECS[row["codec"]]) == (
            clip["num_frames"],
            clip["span"][0],
            clip["codec"],
        )
        assert [row["height"], row["width"], row["fps_numerator"], row["fps_denominator"]] == clip["size"] + clip["fps"]
        assert [row["mask_height"], row["mask_width"]] == (clip["mask_size"] or [0, 0])
        assert (row["film"], row["group"]) == (name_id(clip["film"]), name_id(clip["group"]))
        assert (index.splits[row["split"]] if row["split"] >= 0 else None) == clip["split"]
        assert (index.verdicts[row["verdict"]] if row["verdict"] >= 0 else None) == next(iter(clip["verdict"]), None)
        labels = dict(clip["labels"])
        codes = index.labels[[number]][0].tolist()
        for (name, classes), code in zip(index.label_names.items(), codes, strict=True):
            assert (classes[code] if code >= 0 else None) == labels.get(name)
    assert index.label_names == {"motion": ("left",), "thing": tuple(f"thing-{number}" for number in range(4))}
    assert index.groups == tuple(sorted({clip["group"] for clip in told}))


def test_facts_about_shards(tmp_path: Path) -> None:
    root, _ = write_varied(tmp_path / "data")
    index = Index.open(root)
    assert index.tars["clips"].tolist() == list(SHARDS)
    assert index.tars["first"].tolist() == [sum(SHARDS[:number]) for number in range(len(SHARDS))]
    assert index.rows["shard"].tolist() == [number for number, clips in enumerate(SHARDS) for _ in range(clips)]
    for name, told in zip(index.shards, index.tars, strict=True):
        tar = root / name
        stats = finished_shard(root, tar.stem)
        assert stats is not None
        assert (told["bytes"], told["sha256"].decode()) == (tar.stat().st_size, stats.sha256)


def test_a_data_set_without_labels_has_none(tmp_path: Path) -> None:
    index = Index.open(write_clips(tmp_path / "data", ["a", "b", "c"], colours=(None,)))
    assert index.labels.shape == (3, 0)
    assert index.labels[[2, 0]].shape == (2, 0)


def test_a_label_with_too_many_values_is_no_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, own_cache: Callable[[], None]
) -> None:
    own_cache()
    monkeypatch.setattr(columns, "CLASSES", 3)
    root, _ = write_varied(tmp_path / "data")
    with caplog.at_level(logging.WARNING, "fbm_dist.data"):
        index = Index.open(root)
    assert [record.getMessage() for record in ours(caplog)] == [
        "label 'thing' has more than 3 values: it tells no classes, and is left out"
    ]
    assert index.label_names == {"motion": ("left",)}
    labelled = [number for number, row in enumerate(read_manifest(root).to_pylist()) if "motion" in dict(row["labels"])]
    assert np.flatnonzero(index.labels[:, 0] == 0).tolist() == labelled
    assert sorted(path.name for path in index.folder.glob("*.raw")) == []


def test_names_that_no_number_is_left_for_are_refused() -> None:
    names = columns.Names("splits", 3)
    assert names.numbers(["b", "a"]).tolist() == [0, 1, -1]
    assert names.numbers(["c", "a"]).tolist() == [2, 1, -1]
    with pytest.raises(ValueError, match="more than 3 splits"):
        names.numbers(["d"])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda table: table.slice(1), r"shard-2.parquet: 19 clips, not 20; see: python -m data_tools verify"),
        (
            lambda table: table.set_column(
                table.column_names.index("codec"), "codec", [["theora"] + ["vp9"] * (len(table) - 1)]
            ),
            r"shard-2.parquet: codec 'theora' is none of vp9, h264, png",
        ),
    ],
)
def test_manifests_that_do_not_fit_are_named(
    tmp_path: Path, own_cache: Callable[[], None], change: Callable[[Any], Any], says: str
) -> None:
    own_cache()
    root, _ = write_varied(tmp_path / "data")
    change_manifest(root, "shard-2", change)
    with pytest.raises(ValueError, match=says):
        Index.open(root)
    assert [path.name for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock"] == []


def test_a_manifest_that_is_none_is_named(tmp_path: Path, own_cache: Callable[[], None]) -> None:
    own_cache()
    root, _ = write_varied(tmp_path / "data")
    shard_file(root, "shard-1", "parquet").write_bytes(b"no parquet")  # type: ignore[union-attr]
    with pytest.raises(ValueError, match=r"shard-1.parquet: cannot be read: .*arquet"):
        Index.open(root)


def test_shards_that_are_not_those_of_the_snapshot_are_refused(tmp_path: Path, own_cache: Callable[[], None]) -> None:
    own_cache()
    root, _ = write_varied(tmp_path / "data")
    stats = finished_shard(root, "shard-3")
    assert isinstance(stats, ShardStats)
    path = shard_file(root, "shard-3", "stats.json")
    path.write_bytes(to_json(stats.model_copy(update={"sha256": "0" * 64})))
    with pytest.raises(ValueError, match="the shards differ from snapshot 1; see: python -m data_tools verify"):
        Index.open(root)
    path.unlink()
    with pytest.raises(ValueError, match=r"shard-3.tar: unfinished; see: python -m data_tools verify"):
        Index.open(root)


def test_memory_does_not_grow_with_the_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Callable[[str], None]
) -> None:
    """numpy's and Python's allocations, while an index of many chunks and shards is built, selected and opened."""
    monkeypatch.setattr(arrays, "CHUNK", 1000)
    monkeypatch.setattr(manifest, "GROUP", 500)
    monkeypatch.setattr(manifest, "NAMES_KEPT", 10)
    monkeypatch.setattr(manifest, "WORKERS", 1)  # how much is read ahead is then no matter of chance
    monkeypatch.setattr(places, "CHUNK", 1000)  # of the exclusion list: 4 MB would hide what is to be seen here
    keys = tmp_path / "excluded.txt"
    keys.write_text("clip-1\n")
    chosen, spec = Filter(hold_out=0.5, exclude_keys=keys), ClipSpec(frames=1, frames_per_shot=2)
    peaks: dict[str, list[int]] = {"build": [], "select": [], "open": []}
    for clips in (2_000, 4_000, 24_000):  # the first one pays for imports and caches
        own_cache(f"cache-{clips}")
        root = write_big(tmp_path / f"data-{clips}", clips, clips_per_shard=200, frames=2, size=(32, 32))
        for name in peaks:
            tracemalloc.start()
            index = Index.open(root)
            if name != "build":
                selected = select(index, chosen, spec)
                assert len(selected) == len(selected.kept)
            peaks[name].append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert index.clips == clips
        assert 0.3 * clips < len(np.unique(selected.kept)) < 0.7 * clips
    for name, (_, few, many) in peaks.items():
        # What is as long as the snapshot's shards may grow (100 more, of some 300 bytes); 4 bytes a clip would be 80,000 more.
        assert many < few + 40_000, (name, few, many)
