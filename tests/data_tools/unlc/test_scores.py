"""Soft scores: blobs become doubtful, the filter follows edges, the trimap's bounds."""

from __future__ import annotations

import numpy as np
import pytest

from data_tools.unlc.scores import demote_small_blobs, guided_filter, trimap


def test_small_blobs_become_dont_care() -> None:
    score = np.full((30, 40), 0.1, np.float32)
    score[2:12, 2:12] = 0.9  # 100 pixels
    score[20:28, 2:12] = 0.8  # 80: at least 60 % of the largest
    score[20:25, 30:35] = 1.0  # 25
    found = demote_small_blobs(score, 0.7, 0.6)
    assert found[22, 32] == pytest.approx(0.7 - 1e-5, abs=1e-6)
    assert trimap(found)[22, 32] == -1
    unchanged = np.ones_like(score, dtype=bool)
    unchanged[20:25, 30:35] = False
    np.testing.assert_array_equal(found[unchanged], score[unchanged])


def test_one_blob_and_no_blob_stay() -> None:
    empty = np.full((10, 10), 0.2, np.float32)
    np.testing.assert_array_equal(demote_small_blobs(empty, 0.7, 0.6), empty)
    empty[4, 4] = 1
    np.testing.assert_array_equal(demote_small_blobs(empty, 0.7, 0.6), empty)


def test_trimap_bounds() -> None:
    scores = np.array([0, 0.39, 0.4, 0.7, 0.71, 1], np.float32)
    assert trimap(scores).tolist() == [0, 0, -1, -1, 1, 1]


def test_the_filter_draws_a_ragged_outline_to_the_pictures_edge() -> None:
    grey = np.full((40, 60), 40, np.uint8)
    grey[:, 30:] = 220
    score = np.zeros((40, 60), np.float32)
    for row in range(40):
        score[row, 27 + 6 * (row // 3 % 2) :] = 1  # ragged: three pixels to either side
    truth = grey > 100
    found = guided_filter(score, grey, 4, 1e-3)
    assert ((found > 0.5) != truth).mean() < 0.5 * ((score > 0.5) != truth).mean()
    assert 0 <= found.min() <= found.max() <= 1


def test_the_filter_keeps_a_constant() -> None:
    grey = np.random.default_rng(0).integers(0, 255, (20, 20), dtype=np.uint8)
    np.testing.assert_allclose(guided_filter(np.full((20, 20), 0.3, np.float32), grey, 3, 1e-3), 0.3, atol=1e-4)
