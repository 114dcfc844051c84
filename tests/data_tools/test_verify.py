"""verify finds every kind of damage, names the place, and finds nothing where there is nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data_tools.sample import Metadata, Sample
from data_tools.schema import Verify
from data_tools.shards import commit_snapshot, read_manifest, shard_file, write_shard
from data_tools.verify import Report, verify
from data_tools.videos import encode


def sample(i: int, **changes: object) -> Sample:
    rng = np.random.default_rng(i)
    mask = np.full((8, 16, 20), 9 * i, np.uint8)
    values: dict[str, object] = {
        "film": f"film{i}", "source": f"{i}.mp4", "shot": 0, "span": (0, 8), "fps": (25, 1), "size": (128, 160),
        "num_frames": 8, "codec": "vp9", "group": f"g{i}", "masks": "unlc", "mask_size": (16, 20),
    }  # fmt: skip
    frames = (
        np.repeat(rng.integers(0, 255, (1, 4, 5, 3)).astype(np.uint8), 8, axis=0).repeat(32, axis=1).repeat(32, axis=2)
    )
    video = encode(frames[: int(changes.pop("encoded", 8))], (25, 1))  # type: ignore[call-overload]
    mask = changes.pop("mask", mask)  # type: ignore[assignment]
    return Sample(f"key-{i}", Metadata.model_validate(values | changes), video, mask)


def dataset(root: Path, *samples: Sample) -> Path:
    write_shard(root, "000000", samples or [sample(0), sample(1), sample(2)])
    commit_snapshot(root, {}, ["000000"])
    return root


def check(root: Path, **options: object) -> Report:
    return verify(Verify(path=root, **options))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset(tmp_path_factory.mktemp("good"))


def test_a_good_data_set_has_no_problems(good: Path) -> None:
    report = check(good)
    assert report.problems == []
    assert (report.shards, report.clips, report.decoded) == (1, 3, 3)
    assert report.lines()[-1].startswith(
        f"{good}, snapshot 1: no problems in 1 shards, 3 clips; 3 clips decoded with PyAV"
    )


def test_fewer_clips_may_be_decoded(good: Path) -> None:
    assert check(good, decode=1).decoded == 1
    assert check(good, decode=0).decoded == 0


def change(path: Path, edit: Callable[[bytes], bytes]) -> None:
    path.write_bytes(edit(path.read_bytes()))


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(bytes(data))


def in_video(root: Path) -> int:
    row = read_manifest(root).to_pylist()[1]
    place = next(m for m in row["members"] if m["extension"] == "mp4")
    return int(place["offset"] + place["size"] // 2)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda r: flip(shard_file(r, "000000", "tar"), in_video(r)), ["000000.tar: its sha256", "key-1: its sha256"]),
        (lambda r: change(shard_file(r, "000000", "tar"), lambda b: b[: len(b) // 2]), ["is no whole tar|not those of the manifest"]),
        (lambda r: change(shard_file(r, "000000", "idx"), lambda b: b.replace(b"mp4", b"mpx", 1)), ["000000.idx: does not give"]),
        (lambda r: change(shard_file(r, "000000", "parquet"), lambda b: b[:-9]), ["parquet: its sha256", "cannot be read"]),
        (lambda r: shard_file(r, "000000", "idx").unlink(), ["000000.idx: is missing"]),
        (lambda r: shard_file(r, "000000", "tar").unlink(), ["000000.tar: is missing", "is no whole tar"]),
        (lambda r: shard_file(r, "000000", "stats.json").unlink(), ["the shard is unfinished or lost"]),
        (lambda r: write_shard(r, "000000", [sample(0), sample(1)]), ["a shard was replaced", "says 3 clips, the shards hold 2"]),
    ],
)  # fmt: skip
def test_damage_is_found(good: Path, tmp_path: Path, damage: Callable[[Path], None], expected: list[str]) -> None:
    shutil.copytree(good, tmp_path / "data")
    damage(tmp_path / "data")
    report = check(tmp_path / "data", dali=False)
    import re

    for text in expected:
        assert any(re.search(text, problem) for problem in report.problems), (text, report.problems)
    assert report.num_problems >= len(expected)


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        (lambda: sample(1, encoded=6), "PyAV decodes (6, 128, 160, 3), its json says (8, 128, 160, 3)"),
        (lambda: sample(1, size=(128, 144)), "PyAV decodes (8, 128, 160, 3)"),
        (lambda: sample(1, span=(0, 9)), "span (0, 9) does not hold 8 frames"),
        (lambda: sample(1, masks="none"), "masks are 'none', but mask.png is there"),
        (lambda: sample(1, mask=None), "masks are 'unlc', but mask.png is missing"),
        (lambda: sample(1, mask_size=(20, 16)), "mask.png holds (8, 16, 20)"),
        (lambda: sample(1, keep=(True,) * 3), "3 keep for 8 frames"),
    ],
)
def test_samples_that_break_the_contract_are_found(tmp_path: Path, bad: Callable[[], Sample], expected: str) -> None:
    report = check(dataset(tmp_path, sample(0), bad()), dali=False)
    assert any(expected in problem and "key-1" in problem for problem in report.problems), report.problems


def test_a_key_that_stands_twice_is_found(tmp_path: Path) -> None:
    write_shard(tmp_path, "000000", [sample(0)])
    write_shard(tmp_path, "000001", [sample(0)])
    commit_snapshot(tmp_path, {}, ["000000", "000001"])
    assert any("twice" in problem for problem in check(tmp_path, decode=0).problems)


def test_only_so_many_problems_are_shown_and_all_are_counted(tmp_path: Path) -> None:
    root = dataset(tmp_path, *(sample(i, span=(0, 9)) for i in range(6)))
    report = check(root, decode=0, max_problems=2)
    assert report.num_problems == 6
    assert report.lines()[2] == "... and 4 more"
    assert "6 problems" in report.lines()[-1]


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps({"settings": {}, "snapshots": []}))
    with pytest.raises(ValueError, match="empty"):
        check(tmp_path)
