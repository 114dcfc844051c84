"""Strips tint the foreground and no other pixel; a line of facts names the clip."""

from __future__ import annotations

import numpy as np

from data_tools.report.pages.contact_sheet import facts, overlay, spread, strip
from data_tools.sample import MaskStatistics, Metadata


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


def test_frames_are_spread_from_the_first_to_the_last() -> None:
    assert spread(64, 8).tolist() == [0, 9, 18, 27, 36, 45, 54, 63]
    assert spread(3, 8).tolist() == [0, 1, 2]
    assert spread(1, 8).tolist() == [0]


def test_a_strip_has_gaps_between_its_pictures_only() -> None:
    row = strip([np.full((4, 6, 3), 9, np.uint8), np.full((4, 5, 3), 9, np.uint8)])
    assert row.shape == (4, 6 + 2 + 5, 3)
    assert (row[:, 6:8] == 0).all()
    assert (row[:, -1] == 9).all()
