"""The contact sheet shows the frames, tints the foreground and no other pixel, and names every clip."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_tools.inspect import facts, inspect, overlay
from data_tools.sample import MaskStatistics, Metadata, Sample
from data_tools.schema import Inspect
from data_tools.shards import commit_snapshot, write_shard
from data_tools.videos import encode


def write(root: Path, count: int) -> Path:
    def samples() -> list[Sample]:
        out = []
        for i in range(count):
            frames = np.full((10, 128, 160, 3), 40 + 20 * i, np.uint8)
            mask = np.zeros((10, 32, 40), np.uint8)
            mask[:, 8:24, 10:30] = 255
            metadata = Metadata(
                film=f"f{i}", source=f"{i}.mp4", shot=0, span=(0, 10), fps=(25, 1), size=(128, 160), num_frames=10, codec="vp9",
                group="g", masks="unlc", mask_size=(32, 40), labels={"action": "run"},
            )  # fmt: skip
            out.append(Sample(f"key-{i}", metadata, encode(frames, (25, 1)), mask))
        return out

    write_shard(root, "000000", samples())
    commit_snapshot(root, {}, ["000000"])
    return root


def test_overlay_tints_the_foreground_only() -> None:
    frame = np.full((20, 20, 3), 100, np.uint8)
    mask = np.zeros((20, 20), np.uint8)
    mask[5:10, 5:10] = 255
    out = overlay(frame, mask)
    assert np.array_equal(out[mask == 0], frame[mask == 0])
    assert (out[mask == 255][:, 0].astype(int) > out[mask == 255][:, 1]).all()
    outlined = overlay(frame, None, mask)
    assert (outlined[5, 5:10] == (60, 255, 60)).all()
    assert (outlined[6:9, 6:9] == 100).all(), "an outline is not filled"


def test_the_sheet_is_a_picture_of_the_asked_size(tmp_path: Path) -> None:
    path = inspect(Inspect(path=write(tmp_path, 5), clips=3, frames=4, height=64))
    assert path == tmp_path / "inspect.png"
    sheet = np.asarray(Image.open(path))
    assert sheet.shape[0] == 3 * (64 + 16 + 2)
    assert sheet.shape[1] >= 4 * 80
    inside, outside = sheet[16 + 32, 40].astype(int), sheet[16 + 4, 4].astype(int)
    assert inside[0] > inside[1] + 40, "the middle is tinted"
    assert np.ptp(outside) < 12, "the corner is not"


def test_the_same_seed_shows_the_same_clips(tmp_path: Path) -> None:
    root = write(tmp_path / "data", 6)
    sheets = [
        inspect(Inspect(path=root, clips=2, seed=s, output=tmp_path / f"{i}.png")).read_bytes()
        for i, s in enumerate((3, 3, 4))
    ]
    assert sheets[0] == sheets[1] != sheets[2]


def test_facts_name_source_labels_and_verdict() -> None:
    metadata = Metadata(
        film="f", source="a/b.mp4", shot=2, span=(64, 80), fps=(25, 1), size=(128, 160), num_frames=16, codec="vp9", group="g",
        labels={"action": "run"}, verdict=("small", "flat"), masks="unlc",
        statistics=MaskStatistics(foreground=(0.01, 0.03), border=(0, 0), uncertain=(0, 0)),
    )  # fmt: skip
    line = facts("0123456789abcdef", metadata)
    for text in ("a/b.mp4 shot 2 frames 64-80", "160x128", "fg 2.0%", "pruned: small,flat", "action=run", "0123456789"):
        assert text in line
    assert "a\\nb.mp4 shot 2" in facts("0", metadata.model_copy(update={"source": "a\nb.mp4"})), "one line"


def test_too_many_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ask for fewer clips"):
        inspect(Inspect(path=tmp_path, clips=10_000))
