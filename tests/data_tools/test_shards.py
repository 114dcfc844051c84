"""Shards open in tar, webdataset and DALI alike, are written whole or not at all, and always with the same bytes."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from data_tools.dataset import commit_snapshot, open_dataset, read_manifest
from data_tools.sample import MaskStatistics, Metadata, Sample
from data_tools.shards import finished_shard, read_sample, stretch, write_shard
from data_tools.videos import encode


def samples(count: int = 3, first: int = 0) -> Iterator[Sample]:
    rng = np.random.default_rng(0)
    for i in range(first, first + count):
        num_frames = 6 + i
        mask = rng.integers(0, 255, (num_frames, 32, 40)).astype(np.uint8)
        shares = (0.25,) * num_frames
        metadata = Metadata(
            film=f"film{i}",
            source=f"ünï/{i}.mp4",
            shot=i,
            span=(5, 5 + num_frames),
            fps=(30000, 1001),
            size=(128, 160),
            num_frames=num_frames,
            codec="vp9",
            group="person",
            split="train",
            labels={"motion": "left", "object": "ball"} if i else {},
            masks="unlc",
            mask_size=(32, 40),
            boxes=((0.0, 0.25, 1.0, 0.5), None, *((0.5, 0.5, 0.75, 0.75),) * (num_frames - 2)),
            keep=(True, False) * (num_frames // 2) + (True,) * (num_frames % 2),
            verdict=("small",) if i == 2 else (),
            statistics=MaskStatistics(
                foreground=shares, border=shares, uncertain=shares, flatness=0.5, consistency=0.75
            ),
            versions={"av": "1"},
        )
        frames = rng.integers(0, 255, (num_frames, 128, 160, 3)).astype(np.uint8)
        yield Sample(f"key-{i}", metadata, encode(frames, (30000, 1001)), mask, mask if i == 1 else None)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shards")
    write_shard(root, "000000", samples())
    commit_snapshot(root, {"codec": "vp9"}, ["000000"])
    return root


def test_everything_comes_back(written: Path) -> None:
    rows = read_manifest(written).to_pylist()
    assert [r["key"] for r in rows] == ["key-0", "key-1", "key-2"]
    for row, sample in zip(rows, samples(), strict=True):
        back = read_sample(written, row)
        assert back.metadata == sample.metadata
        assert back.video == sample.video
        assert np.array_equal(back.mask, sample.mask)  # type: ignore[arg-type]
        for name in ("film", "source", "shot", "num_frames", "codec", "group", "split", "masks"):
            assert row[name] == getattr(sample.metadata, name)
        assert dict(row["labels"]) == sample.metadata.labels
        assert tuple(row["span"]) == sample.metadata.span
        assert tuple(row["verdict"]) == sample.metadata.verdict
        assert tuple(row["keep"]) == sample.metadata.keep
        assert tuple(None if b is None else tuple(b) for b in row["boxes"]) == sample.metadata.boxes
        assert row["statistics"]["consistency"] == 0.75
    assert read_sample(written, rows[1]).truth is not None
    assert read_sample(written, rows[0]).truth is None


def test_members_stand_where_the_manifest_says(written: Path) -> None:
    tar = (written / "shards/000000.tar").read_bytes()
    for row, sample in zip(read_manifest(written).to_pylist(), samples(), strict=True):
        assert [m["extension"] for m in row["members"]] == [name for name, _ in sample.members()]
        for member, (_, data) in zip(row["members"], sample.members(), strict=True):
            assert tar[member["offset"] : member["offset"] + member["size"]] == data
        start, size = stretch(row)
        assert hashlib.sha256(tar[start : start + size]).hexdigest() == row["sha256"]


def test_the_same_samples_give_the_same_bytes(written: Path, tmp_path: Path) -> None:
    write_shard(tmp_path, "000000", samples())
    for path in (written / "shards").iterdir():
        assert path.read_bytes() == (tmp_path / "shards" / path.name).read_bytes(), path.name


@pytest.mark.skipif(shutil.which("tar") is None, reason="no tar command")
def test_tar_reads_a_shard(written: Path) -> None:
    listed = subprocess.run(
        ["tar", "tf", "shards/000000.tar"], cwd=written, capture_output=True, text=True, check=True
    ).stdout.split()
    assert listed[:4] == ["key-0.json", "key-0.mask.png", "key-0.mp4", "key-0.shape.npy"]
    assert len(listed) == 13


def test_webdataset_reads_a_shard(written: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    read = list(webdataset.WebDataset(str(written / "shards/000000.tar"), shardshuffle=False))
    for got, sample in zip(read, samples(), strict=True):
        assert got["__key__"] == sample.key
        assert {k: v for k, v in got.items() if not k.startswith("__")} == dict(sample.members())


def test_dali_reads_a_shard_by_its_index(written: Path) -> None:
    dali = pytest.importorskip("nvidia.dali", reason="DALI is not installed")
    base = str(written / "shards/000000")
    pipe = dali.Pipeline(batch_size=3, num_threads=1, device_id=None)
    with pipe:
        video, mask, shape = dali.fn.readers.webdataset(
            paths=[f"{base}.tar"],
            index_paths=[f"{base}.idx"],
            ext=["mp4", "mask.png", "shape.npy"],
            missing_component_behavior="error",
        )
        pipe.set_outputs(
            dali.fn.decoders.video(video, device="cpu"),
            dali.fn.decoders.image(mask, output_type=dali.types.GRAY),
            dali.fn.decoders.numpy(shape),
        )
    pipe.build()
    clips, masks, shapes = pipe.run()
    for i, sample in enumerate(samples()):
        count = sample.metadata.num_frames
        assert clips.at(i).shape == (count, 128, 160, 3)
        assert np.array_equal(masks.at(i).reshape(count, 32, 40), sample.mask)  # type: ignore[arg-type]
        assert shapes.at(i).tolist() == [count, 32, 40, 128, 160, 30000, 1001]


def test_a_failure_midway_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[Sample]:
        yield from samples(1)
        raise RuntimeError("the disk is on fire")

    with pytest.raises(RuntimeError):
        write_shard(tmp_path, "000000", broken())
    assert list((tmp_path / "shards").iterdir()) == []
    assert finished_shard(tmp_path, "000000") is None


def test_a_shard_being_rewritten_is_not_finished(tmp_path: Path) -> None:
    write_shard(tmp_path, "000000", samples(1))

    def look() -> Iterator[Sample]:
        assert finished_shard(tmp_path, "000000") is None
        yield from samples(2)

    assert write_shard(tmp_path, "000000", look()).clips == 2


@pytest.mark.parametrize(
    ("given", "message"), [([], "empty"), ([*samples(1), *samples(1)], "two samples have the key key-0")]
)
def test_what_makes_no_shard_is_refused(tmp_path: Path, given: list[Sample], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_shard(tmp_path, "000000", given)


def test_snapshots_only_grow(tmp_path: Path) -> None:
    write_shard(tmp_path, "000000", samples(2))
    first = commit_snapshot(tmp_path, {"a": 1}, ["000000"])
    write_shard(tmp_path, "000001", samples(1, first=2))
    second = commit_snapshot(tmp_path, {"a": 1}, ["000001"])
    dataset = open_dataset(tmp_path)
    assert dataset.snapshots == (first, second)
    assert second.shards == ("000000", "000001")
    assert (first.clips, second.clips) == (2, 3)
    assert first.digest != second.digest
    assert dataset.snapshot("1") == first
    assert dataset.snapshot() == second
    assert read_manifest(tmp_path, "1").num_rows == 2
    assert read_manifest(tmp_path).num_rows == 3
    with pytest.raises(ValueError, match="no snapshot '7' in this data set; it has 1, 2"):
        dataset.snapshot("7")
    with pytest.raises(ValueError, match="other settings"):
        commit_snapshot(tmp_path, {"a": 2}, [])
    with pytest.raises(ValueError, match="000009 is missing or unfinished"):
        commit_snapshot(tmp_path, {"a": 1}, ["000009"])


def test_a_replaced_shard_is_seen(tmp_path: Path) -> None:
    write_shard(tmp_path, "000000", samples(2))
    commit_snapshot(tmp_path, {}, ["000000"])
    write_shard(tmp_path, "000000", samples(1))
    with pytest.raises(ValueError, match="the shards differ from snapshot 1"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "no such folder; make a data set with"),
        (lambda root: root.mkdir(), "no data set"),
        (lambda root: (root / "staging").mkdir(parents=True), "an unfinished data set; run the same `prepare` again"),
        (lambda root: (root.mkdir(), (root / "dataset.json").write_text("{")), "not a data set"),
        (lambda root: (root.mkdir(), (root / "dataset.json").write_text('{"settings": {}, "snapshots": []}')), "empty"),
    ],
)
def test_what_is_no_data_set_says_what_it_is(tmp_path: Path, make: object, message: str) -> None:
    make(tmp_path / "data")  # type: ignore[operator]
    with pytest.raises(ValueError, match=message) as caught:
        open_dataset(tmp_path / "data")
    assert "\n" not in str(caught.value)
