"""Resizing, grey, Lab, blurs and borders beside OpenCV's."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from data_tools.unlc.superpixels import lab_frame
from data_tools.unlc.tensors import pictures


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, 60, 90, 3), dtype=np.uint8)


def planar(frames: np.ndarray) -> Tensor:
    return torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous()


@pytest.mark.parametrize(
    ("size", "method"),
    [
        ((25, 33), cv2.INTER_AREA),
        ((30, 45), cv2.INTER_AREA),
        ((60, 40), cv2.INTER_AREA),
        ((75, 120), cv2.INTER_LINEAR),
    ],
)
def test_resized_is_opencvs_within_rounding(noise: np.ndarray, size: tuple[int, int], method: int) -> None:
    expected = np.stack([cv2.resize(frame, size[::-1], interpolation=method) for frame in noise])
    found = pictures.resized(planar(noise), size).permute(0, 2, 3, 1).numpy()
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_a_side_that_shrinks_is_averaged_though_the_other_grows() -> None:
    stripes = torch.zeros(1, 3, 4, 64, dtype=torch.uint8)
    stripes[..., ::2] = 200
    assert (pictures.resized(stripes, (32, 32)) == 100).all()


def test_grey_is_opencvs_exactly(noise: np.ndarray) -> None:
    expected = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in noise])
    np.testing.assert_array_equal(pictures.grey(planar(noise)).numpy(), expected)


@pytest.mark.parametrize("blur", [0.0, 1.0, 5.0])
def test_lab_is_opencvs_within_its_tables(noise: np.ndarray, blur: float) -> None:
    """OpenCV looks Lab up in a coarse table; ours is the formula."""
    expected = np.stack([lab_frame(frame, blur) for frame in noise]).transpose(0, 3, 1, 2)
    found = pictures.lab(planar(noise), blur).numpy()
    assert np.abs(found - expected).max() < 0.6
    assert np.abs(found - expected).mean() < 0.12


def test_lab_of_known_colours() -> None:
    colours = torch.tensor([[255, 255, 255], [0, 0, 0], [255, 0, 0]], dtype=torch.uint8)
    found = pictures.lab(colours.T[None, :, None])[0, :, 0].T
    expected = [[100, 0, 0], [0, 0, 0], [53.24, 80.09, 67.2]]  # the sRGB standard's
    np.testing.assert_allclose(found.numpy(), expected, atol=0.02)


@pytest.mark.parametrize("side", [1, 4, 5, 61])
def test_box_mean_is_opencvs(side: int) -> None:
    values = np.random.default_rng(1).random((2, 40, 50)).astype(np.float32)
    expected = np.stack([cv2.blur(value, (side, side), borderType=cv2.BORDER_REFLECT) for value in values])
    np.testing.assert_allclose(pictures.box_mean(torch.from_numpy(values), side).numpy(), expected, atol=1e-6)


def test_borders_mirror_however_wide() -> None:
    assert pictures.mirrored(3, 7, 4, torch.device("cpu")).tolist() == [0, 0, 1, 2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0]


def test_chunks_cover_all_and_are_bounded() -> None:
    parts = list(pictures.chunks(10, pictures.BUDGET["cpu"] // 4, torch.device("cpu")))
    assert parts == [slice(0, 4), slice(4, 8), slice(8, 10)]
    assert list(pictures.chunks(2, 1 << 40, torch.device("cpu"))) == [slice(0, 1), slice(1, 2)], "one at least"
