"""The dominant motion on flow fields built by hand: static, translating, none, and a plane under a moving camera."""

from __future__ import annotations

import numpy as np
import pytest

from data_tools.unlc.config import UNLC, Motion
from data_tools.unlc.dominant import deviation, fit_plane, histogram_deviation

PAPER = UNLC.paper().motion


def field(dx: float, dy: float, size: int = 40) -> np.ndarray:
    """A flow field of one vector everywhere."""
    return np.full((size, size, 2), (dx, dy), dtype=np.float32)


def test_a_static_camera_leaves_the_squared_magnitude() -> None:
    flow = field(0, 0)
    flow[10:20, 10:20] = (3, 4)
    found = histogram_deviation(flow, PAPER)
    assert found is not None
    assert found[15, 15] == pytest.approx(25)
    assert found[0, 0] == 0


def test_a_translating_camera_leaves_the_squared_angle_to_the_bins_centre() -> None:
    flow = field(5, 0.01)  # just above angle 0: in the bin from 0 to 18 degrees
    flow[10:20, 10:20] = (0, 2)  # 90 degrees
    found = histogram_deviation(flow, PAPER)
    assert found is not None
    centre = np.deg2rad(9)
    assert found[15, 15] == pytest.approx((np.pi / 2 - centre) ** 2, rel=1e-3)
    assert found[0, 0] == pytest.approx(centre**2, rel=0.05)


def test_angles_wrap() -> None:
    flow = field(-5, 0.01)  # just below 180 degrees
    flow[10:20, 10:20] = (-5, -0.01)  # just above it: a hair away, not a full turn
    found = histogram_deviation(flow, PAPER)
    assert found is not None
    assert found[15, 15] == pytest.approx(np.deg2rad(9) ** 2, rel=0.05)


def test_two_directions_have_no_dominant_one() -> None:
    flow = field(5, 0)
    flow[:20] = (0, 5)
    assert histogram_deviation(flow, PAPER) is None


def camera(size: int = 40) -> np.ndarray:
    """Pan, zoom and turn of a static scene."""
    y, x = np.meshgrid(np.linspace(-1, 1, size), np.linspace(-1, 1, size), indexing="ij")
    return np.stack([4 + 2 * x - 1.5 * y, -3 + 1.5 * x + 2 * y], -1).astype(np.float32)


def test_the_plane_fit_ignores_an_object() -> None:
    flow = camera()
    flow[10:24, 12:26] += (3, -4)  # 12 % of the frame
    residual = np.linalg.norm(flow - fit_plane(flow), axis=-1)
    assert residual[:8].max() < 0.1
    assert residual[12:22, 14:24] == pytest.approx(5, abs=0.1)


def test_the_histogram_cannot_follow_what_the_plane_can() -> None:
    flow = camera() - np.float32([4, -3])  # zoom and turn alone: every direction
    assert histogram_deviation(flow, PAPER) is None
    found = deviation(flow, Motion())
    assert found is not None
    assert found.max() < 0.1


def test_chaos_has_no_dominant_motion() -> None:
    flow = np.random.default_rng(0).normal(scale=8, size=(40, 40, 2)).astype(np.float32)
    assert deviation(flow, Motion()) is None


def test_power_is_of_the_residual_in_pixels() -> None:
    flow = field(0, 0)
    flow[10:20, 10:20] = (3, 4)
    for power in (1.0, 2.0):
        found = deviation(flow, Motion(power=power))
        assert found is not None
        assert found[15, 15] == pytest.approx(5**power, rel=0.05)
