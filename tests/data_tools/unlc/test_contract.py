"""What both methods, arrays and tensors, promise of any frames: shape, type and range of the scores, and zeros where nothing moves."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st

from data_tools.unlc import UNLC, motion_masks
from data_tools.unlc.tensors.masks import motion_masks as in_tensors
from tests.moving_disc import texture

Method = Callable[..., np.ndarray]
METHODS = pytest.mark.parametrize("method", [motion_masks, in_tensors], ids=["arrays", "tensors"])


@METHODS
@pytest.mark.parametrize("preset", [UNLC(), UNLC.paper()], ids=["default", "paper"])
@pytest.mark.parametrize("shape", [(1, 20, 30), (2, 1, 1), (2, 3, 50), (3, 90, 7), (4, 33, 33)])
def test_still_frames_of_any_size_have_no_foreground(shape: tuple[int, int, int], preset: UNLC, method: Method) -> None:
    for value in (0, 90, 255):
        scores = method(np.full((*shape, 3), value, np.uint8), preset)
        assert scores.shape == shape
        assert scores.dtype == np.float32
        assert not scores.any()
    still = np.repeat(texture(shape[1], shape[2], 3, (120, 90, 60))[None], shape[0], 0)
    assert method(still).max() < 0.1


@METHODS
@given_settings(max_examples=15, deadline=None)
@given(st.integers(1, 4), st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**31))
def test_any_frames_give_scores(method: Method, num_frames: int, height: int, width: int, seed: int) -> None:
    frames = np.random.default_rng(seed).integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)
    for preset in (UNLC(), UNLC.paper()):
        scores = method(frames, preset)
        assert scores.shape == frames.shape[:3]
        assert scores.dtype == np.float32
        assert scores.min() >= 0
        assert scores.max() <= 1  # NaN fails both
