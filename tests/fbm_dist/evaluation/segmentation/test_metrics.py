"""J, precision, recall and F against masks measured by hand, scikit-learn, and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import jaccard_score, precision_score, recall_score

from fbm_dist.evaluation.segmentation.metrics import boundary_f, frames, measure, outline, ratios, statistics


def box(top: int, left: int, bottom: int, right: int, size: tuple[int, int] = (20, 30)) -> np.ndarray:
    out = np.zeros(size, bool)
    out[top:bottom, left:right] = True
    return out


def test_a_frame_by_hand() -> None:
    """Boxes of 4x6 that share 4x3: 12 hits, 12 alarms, 12 misses."""
    counts, share, _ = measure(box(2, 2, 6, 8), box(2, 5, 6, 11))
    assert counts == (12, 12, 12)
    assert share == pytest.approx(24 / 600)
    found = frames([measure(box(2, 2, 6, 8), box(2, 5, 6, 11))])
    assert found.iou[0] == pytest.approx(1 / 3)
    assert found.precision[0] == found.recall[0] == pytest.approx(1 / 2)


@pytest.mark.parametrize("seed", range(3))
def test_frames_agree_with_scikit_learn(seed: int) -> None:
    random = np.random.default_rng(seed)
    found, truth = random.random((4, 20, 30)) > 0.6, random.random((4, 20, 30)) > 0.7
    measured = frames([measure(ours, theirs) for ours, theirs in zip(found, truth, strict=True)])
    for i in range(4):
        pair = truth[i].ravel(), found[i].ravel()
        assert measured.iou[i] == pytest.approx(jaccard_score(*pair))
        assert measured.precision[i] == pytest.approx(precision_score(*pair))
        assert measured.recall[i] == pytest.approx(recall_score(*pair))
    pooled = ratios(measured.pooled())
    pair = truth.ravel(), found.ravel()
    assert pooled == pytest.approx([jaccard_score(*pair), precision_score(*pair), recall_score(*pair)])


def test_empty_masks() -> None:
    nothing, something = box(0, 0, 0, 0), box(2, 2, 6, 8)
    found = frames([measure(*pair) for pair in ((nothing, nothing), (nothing, something), (something, nothing))])
    assert found.iou.tolist() == [1, 0, 0]
    assert found.precision.tolist() == [1, 0, 0]
    assert found.recall.tolist() == [1, 0, 0]
    assert found.boundary.tolist() == [1, 0, 0]


def test_what_nobody_judged_does_not_count() -> None:
    void = box(0, 8, 20, 30)
    counts, share, boundary = measure(box(2, 2, 6, 12), box(2, 2, 6, 8), void)
    assert counts == (24, 0, 0)
    assert boundary == 1
    assert share == pytest.approx(40 / 600), "of what was predicted, as it was"


def test_pooling_skips_frames_by_their_predicted_share() -> None:
    whole, truth = box(0, 0, 20, 30), box(2, 2, 6, 8)
    found = frames([measure(whole, truth), measure(truth, truth), measure(box(0, 0, 1, 12), truth)])
    assert found.pooled().tolist() == [48, 576 + 12, 24]
    assert found.kept(0.02, 0.7).tolist() == [False, True, False], "12 of 600 pixels are 2 %, and not more"
    assert found.pooled((0.02, 0.7)).tolist() == [24, 0, 0]
    assert np.isnan(ratios(np.zeros(3))).all()


def test_the_papers_own_figures_are_of_one_matrix() -> None:
    for iou, precision, recall in ((13.1, 15.4, 45.8), (24.8, 29.9, 59.3)):
        hits = 1.0
        counts = np.array([hits, hits / (precision / 100) - hits, hits / (recall / 100) - hits])
        assert 100 * ratios(counts)[0] == pytest.approx(iou, abs=0.1)


def test_outline_of_a_box() -> None:
    """Half a pixel towards the origin: a ring that begins one row above and one column left of the box."""
    line = outline(box(3, 3, 6, 7, (8, 10)))
    expected = box(2, 2, 6, 7, (8, 10)) & ~box(3, 3, 5, 6, (8, 10))
    assert (line == expected).all()
    assert not outline(np.ones((5, 5), bool)).any(), "the frame's edge is no boundary"


def test_boundary_f_by_hand() -> None:
    """On a frame of 20x30 outlines may be ceil(0.008 * 36.06) = 1 pixel apart."""
    truth = box(5, 5, 15, 20)
    assert boundary_f(truth, truth) == 1
    assert boundary_f(box(6, 5, 16, 20), truth) == 1, "shifted by one pixel"
    assert boundary_f(box(8, 8, 12, 17), truth) == 0, "three pixels inside on every side"
    half = boundary_f(box(5, 5, 15, 12), truth)
    assert 0.5 < half < 0.9


def brute_force_f(found: np.ndarray, truth: np.ndarray) -> float:
    """F by distances between all pairs of outline pixels, and outlines by comparing pixels one by one."""
    height, width = truth.shape
    reach = np.ceil(0.008 * np.sqrt(height**2 + width**2))

    def points(mask: np.ndarray) -> np.ndarray:
        out = []
        for y in range(height):
            for x in range(width):
                last_row, last_column = y == height - 1, x == width - 1
                others = (
                    [(y, x + 1)]
                    if last_row
                    else [(y + 1, x)]
                    if last_column
                    else [(y, x + 1), (y + 1, x), (y + 1, x + 1)]
                )
                if not (last_row and last_column) and any(mask[other] != mask[y, x] for other in others):
                    out.append((y, x))
        return np.array(out, float).reshape(-1, 2)

    ours, theirs = points(found), points(truth)
    if not len(ours) or not len(theirs):
        return float(len(ours) == len(theirs))
    distance = np.linalg.norm(ours[:, None] - theirs[None], axis=2)
    precision = (distance.min(1) <= reach).mean()
    recall = (distance.min(0) <= reach).mean()
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(4, 40), st.integers(4, 40))
def test_boundary_f_agrees_with_brute_force(seed: int, height: int, width: int) -> None:
    random = np.random.default_rng(seed)
    found, truth = (random.random((height // 4 + 1, width // 4 + 1)) > 0.5 for _ in range(2))
    found, truth = (np.kron(mask, np.ones((4, 4), bool))[:height, :width] for mask in (found, truth))
    assert boundary_f(found, truth) == pytest.approx(brute_force_f(found, truth))


def test_a_wide_frame_lets_outlines_be_further_apart() -> None:
    """480x854: 8 pixels, the value that DAVIS is known for."""
    truth = box(100, 100, 300, 400, (480, 854))
    assert boundary_f(box(108, 100, 308, 400, (480, 854)), truth) == 1
    assert boundary_f(box(109, 109, 291, 391, (480, 854)), truth) < 0.1


def test_statistics_of_a_sequence() -> None:
    """Quarters of nine frames share their edge frames: 0-2 and 6-8."""
    told = statistics(np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]))
    assert told.mean == pytest.approx(0.5)
    assert told.recall == pytest.approx(4 / 9), "0.5 itself is not above one half"
    assert told.decay == pytest.approx(0.8 - 0.2)
    assert statistics(np.array([0.25])).decay == 0
