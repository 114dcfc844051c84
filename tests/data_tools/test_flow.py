"""Optical flow: direction, size, neighbours, and what it refuses."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from data_tools.flow import OpticalFlow, flow_size, flows_around, grey_frames


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth random grey values: something for flow to hold on to."""
    noise = np.random.default_rng(seed).normal(size=(height, width)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2)
    return np.uint8(np.clip(128 + 40 * smooth / smooth.std(), 0, 255))


@pytest.mark.parametrize(("dx", "dy"), [(3, 0), (-2, 1), (0, -4)])
def test_flow_points_to_where_the_pixel_went(dx: int, dy: int) -> None:
    source = texture(80, 96)
    target = np.roll(source, (dy, dx), axis=(0, 1))
    flow = OpticalFlow("medium", finest=0)(source, target)
    assert np.median(flow[..., 0]) == pytest.approx(dx, abs=0.1)
    assert np.median(flow[..., 1]) == pytest.approx(dy, abs=0.1)


def test_frames_around_stop_at_the_ends_of_the_shot() -> None:
    grey = np.stack([texture(32, 32, seed) for seed in range(5)])
    flow = OpticalFlow("ultrafast")
    assert [offset for offset, _ in flows_around(grey, 0, (1, 3), flow)] == [1, 3]
    assert [offset for offset, _ in flows_around(grey, 3, (1, 3), flow)] == [-3, -1, 1]
    assert list(flows_around(grey[:1], 0, (1, 2, 3), flow)) == []


def test_sizes() -> None:
    assert flow_size(240, 427, 100, "square") == (100, 100)
    assert flow_size(240, 427, 100, "native") == (100, 178)
    assert flow_size(427, 240, 100, "native") == (178, 100)
    assert flow_size(10, 1000, 100, "native") == (100, 400), "a ribbon must not become a huge picture"


def test_grey_frames_average_when_they_shrink() -> None:
    frames = np.zeros((1, 4, 4, 3), dtype=np.uint8)
    frames[:, :, ::2] = 200
    np.testing.assert_array_equal(grey_frames(frames, (2, 2)), np.full((1, 2, 2), 100))


def test_refuses_what_it_cannot_compare() -> None:
    flow = OpticalFlow()
    with pytest.raises(ValueError, match="one size"):
        flow(texture(32, 32), texture(32, 40))
    with pytest.raises(ValueError, match="at least 16"):
        flow(texture(8, 32), texture(8, 32))
