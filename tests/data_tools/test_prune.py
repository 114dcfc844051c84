"""Pruning: the statistics by hand, each rule alone, the paper's preset, boxes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from data_tools.prune import Pruning, boxes, clip_verdict, frame_verdicts, keep, statistics


def block(rows: slice, columns: slice, score: float = 1.0, size: int = 20) -> np.ndarray:
    """One frame with a block of foreground."""
    mask = np.zeros((size, size), dtype=np.float32)
    mask[rows, columns] = score
    return mask


def test_statistics_by_hand() -> None:
    first = block(slice(5, 10), slice(5, 15))  # 50 of 400 pixels
    second = block(slice(5, 10), slice(10, 20))  # 50 pixels, 25 of them shared; 5 of the 76 border pixels
    third = block(slice(0, 4), slice(0, 5), score=0.5)  # uncertain only
    found = statistics(np.stack([first, second, third]))
    assert found.foreground == pytest.approx((0.125, 0.125, 0.0))
    assert found.border == pytest.approx((0.0, 5 / 76, 0.0), abs=1e-6)
    assert found.uncertain == pytest.approx((0.0, 0.0, 0.05))
    assert found.consistency == pytest.approx((25 / 75 + 0) / 2, abs=1e-6)
    spread = [np.sqrt(0.125 * 0.875), np.sqrt(0.125 * 0.875), 0.5 * np.sqrt(0.05 * 0.95)]
    assert found.flatness == pytest.approx(np.mean(spread), abs=1e-6)


def test_bytes_and_floats_agree() -> None:
    mask = np.random.default_rng(0).integers(0, 256, (3, 12, 16), dtype=np.uint8)
    assert statistics(mask) == statistics(mask.astype(np.float32) / 255)
    assert boxes(mask) == boxes(mask.astype(np.float32) / 255)


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (block(slice(0, 0), slice(0, 0)), ("small",)),
        (block(slice(1, 20), slice(1, 19)), ("large", "border")),
        (block(slice(0, 3), slice(0, 20)), ("border",)),
        (block(slice(5, 15), slice(5, 15)), ()),
    ],
)
def test_each_rule_alone(frame: np.ndarray, reason: tuple[str, ...]) -> None:
    found = statistics(frame[None])
    assert frame_verdicts(found, Pruning()) == [reason]
    assert keep(found, Pruning()) == (not reason,)


def test_the_papers_bound_drops_what_the_default_keeps() -> None:
    found = statistics(block(slice(8, 12), slice(8, 13))[None])  # 5 % foreground: a person in Weizmann
    assert clip_verdict(found, Pruning()) == ()
    assert clip_verdict(found, Pruning.paper()) == ("small",)


def test_a_clip_falls_when_too_few_of_its_frames_stand() -> None:
    good, empty = block(slice(5, 15), slice(5, 15)), block(slice(0, 0), slice(0, 0))
    half = statistics(np.stack([good, good, empty, empty]))
    fewer = statistics(np.stack([good, empty, empty, empty]))
    assert clip_verdict(half, Pruning()) == ()
    assert clip_verdict(fewer, Pruning()) == ("small",)
    assert clip_verdict(fewer, Pruning(min_kept=0.25)) == ()


def test_reasons_come_by_frequency() -> None:
    full, empty = np.ones((20, 20), np.float32), np.zeros((20, 20), np.float32)
    found = statistics(np.stack([full, empty, empty]))
    assert clip_verdict(found, Pruning()) == ("flat", "small", "border", "large")


def test_a_mask_that_says_nothing_is_flat() -> None:
    assert clip_verdict(statistics(np.full((2, 8, 8), 0.6, np.float32)), Pruning()) == ("flat", "small")


def test_boxes_are_shares() -> None:
    mask = np.stack([block(slice(5, 10), slice(4, 20)), block(slice(5, 10), slice(4, 20), score=0.5)])
    assert boxes(mask) == ((0.2, 0.25, 1.0, 0.5), None)


@settings(max_examples=30, deadline=None)
@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=9)))
def test_any_mask_has_shares(mask: np.ndarray) -> None:
    found = statistics(mask)
    for shares in (found.foreground, found.border, found.uncertain):
        assert len(shares) == len(mask)
        assert all(0 <= share <= 1 for share in shares)
    assert 0 <= found.flatness <= 0.5
    assert 0 <= found.consistency <= 1
    for box, frame in zip(boxes(mask), mask, strict=True):
        assert (box is None) == (frame.max() <= 127)
        assert box is None or (0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1)


@pytest.mark.parametrize(
    "mask",
    [
        np.zeros((4, 4)),
        np.zeros((0, 4, 4)),
        np.full((1, 4, 4), 2.0),
        np.full((1, 4, 4), np.nan),
        np.ones((1, 4, 4), int),
    ],
)
def test_refuses_what_is_no_mask(mask: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"mask|scores"):
        statistics(mask)


def test_rules_must_leave_room() -> None:
    with pytest.raises(ValueError, match="larger than max_foreground"):
        Pruning(min_foreground=0.9)


def test_a_foreground_that_jumps_is_unsteady_where_that_is_asked() -> None:
    left, right = block(slice(5, 15), slice(2, 8)), block(slice(5, 15), slice(12, 18))
    jumps, stays = statistics(np.stack([left, right, left])), statistics(np.stack([left, left, left]))
    assert clip_verdict(jumps, Pruning()) == ()
    assert clip_verdict(jumps, Pruning(min_consistency=0.3)) == ("unsteady",)
    assert clip_verdict(stays, Pruning(min_consistency=0.3)) == ()
    assert clip_verdict(statistics(left[None]), Pruning(min_consistency=0.3)) == (), "one frame cannot jump"
