"""Masks made worse: each kind against OpenCV, NumPy or numbers by hand; nothing where there is nothing; the given masks stay."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from fbm_dist.data.decoding.degradation import degraded
from fbm_dist.schema import Degrade

KINDS = [
    Degrade(kind="boundary", kernel=5),
    Degrade(kind="truncate", share=0.4),
    Degrade(kind="box"),
    Degrade(kind="full"),
]
EVERY_WAY = (0.1, 0.3, 0.6, 0.9)  # eroded, eroded, dilated, dilated; top, bottom, left, right
SIDES = ("top", "bottom", "left", "right")


@pytest.fixture(scope="module")
def soft() -> Tensor:
    """Soft scores of 4 clips of 3 frames, 40 x 48: two blurred blobs each, which may touch the edge of the frame."""
    random = np.random.default_rng(0)
    scores = np.zeros((4, 1, 3, 40, 48), np.float32)
    for frame in scores.reshape(-1, 40, 48):
        for _ in range(2):
            y, x, radius = random.integers(0, 40), random.integers(0, 48), random.integers(4, 10)
            cv2.circle(frame, (int(x), int(y)), int(radius), 1.0, -1)
        frame[:] = cv2.GaussianBlur(frame, (9, 9), 2)
    return torch.from_numpy(scores)


def frames(masks: Tensor) -> list[list[np.ndarray]]:
    """Of each clip its frames."""
    return [list(clip[0].numpy()) for clip in masks]


@pytest.mark.parametrize("kernel", [1, 3, 5, 11, 39])
def test_the_boundary_is_eroded_or_dilated_as_by_opencv(soft: Tensor, kernel: int) -> None:
    found = degraded(soft, Degrade(kind="boundary", kernel=kernel), EVERY_WAY)
    square = np.ones((kernel, kernel), np.uint8)
    ways = (cv2.erode, cv2.erode, cv2.dilate, cv2.dilate)
    for way, before, after in zip(ways, frames(soft), frames(found), strict=True):
        for one, other in zip(before, after, strict=True):
            assert np.array_equal(other, way(one, square))
    assert torch.equal(found, soft) == (kernel == 1)
    if kernel == 3:
        assert ((found > 0.1) & (found < 0.9)).float().mean() > 0.05  # soft scores stay soft


HAND = np.array(
    [  # a column of faint scores beside the thing, a row of them above
        [0.0, 0.2, 0.2, 0.2, 0.2, 0.2],
        [0.3, 0.9, 0.9, 0.0, 0.0, 0.0],
        [0.3, 0.9, 0.9, 0.0, 0.0, 0.0],
        [0.3, 0.8, 0.8, 0.8, 0.8, 0.0],
        [0.3, 0.8, 0.8, 0.8, 0.8, 0.0],
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.4],
    ],
    np.float32,
)  # its box: rows 1 to 4, columns 1 to 4


@pytest.mark.parametrize(
    ("share", "lines"), [(0.1, 0), (0.125, 1), (0.25, 1), (0.3, 1), (0.375, 2), (0.5, 2), (0.75, 3), (0.99, 4)]
)
def test_a_strip_of_the_box_is_truncated_by_hand(share: float, lines: int) -> None:
    masks = torch.from_numpy(HAND).expand(4, 1, 1, 6, 6)
    found = degraded(masks, Degrade(kind="truncate", share=share), EVERY_WAY)
    wanted = np.stack([HAND] * 4)
    if lines:
        wanted[0, : 1 + lines] = 0
        wanted[1, 5 - lines :] = 0
        wanted[2, :, : 1 + lines] = 0
        wanted[3, :, 5 - lines :] = 0
    assert np.array_equal(found[:, 0, 0].numpy(), wanted)


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.7])
def test_the_share_of_the_area_that_goes_is_the_one_that_was_given(share: float) -> None:
    random = np.random.default_rng(1)
    masks = torch.zeros(4, 1, 25, 64, 64)
    for frame in masks.view(-1, 64, 64):
        (y, x), (height, width) = random.integers(0, 24, 2), random.integers(20, 40, 2)
        frame[y : y + height, x : x + width] = 1
    found = degraded(masks, Degrade(kind="truncate", share=share), EVERY_WAY)
    left = found.sum((3, 4)) / masks.sum((3, 4))
    assert (1 - left - share).abs().max() <= 0.5 / 20 + 1e-6  # half a line of the shortest box
    assert abs(float((1 - left).mean()) - share) < 0.01
    for side, before, after in zip(SIDES, frames(masks), frames(found), strict=True):
        for one, other in zip(before, after, strict=True):
            (x0, y0, w0, h0), (x1, y1, w1, h1) = (cv2.boundingRect(frame.astype(np.uint8)) for frame in (one, other))
            lost = {"top": y1 - y0, "bottom": y0 + h0 - y1 - h1, "left": x1 - x0, "right": x0 + w0 - x1 - w1}
            assert {name for name, lines in lost.items() if lines} <= {side}
            assert abs(lost[side] - share * (h0 if side in ("top", "bottom") else w0)) <= 0.5


def test_the_filled_box_of_each_frame_is_that_of_opencv(soft: Tensor) -> None:
    found = degraded(soft, Degrade(kind="box"), EVERY_WAY)
    for before, after in zip(frames(soft), frames(found), strict=True):
        for one, other in zip(before, after, strict=True):
            x, y, width, height = cv2.boundingRect((one > 0.5).astype(np.uint8))
            wanted = np.zeros_like(one)
            wanted[y : y + height, x : x + width] = 1
            assert np.array_equal(other, wanted)
    assert found.mean() > 1.3 * (soft > 0.5).float().mean()


def test_a_score_of_one_half_is_in_no_box() -> None:
    scores = torch.tensor([0.2, 0.5, 0.51, 0.2, 0.9, 0.5]).expand(1, 1, 1, 3, 6)
    found = degraded(scores, Degrade(kind="box"), [0.0])
    assert found[0, 0, 0].tolist() == [[0, 0, 1, 1, 1, 0]] * 3


def test_full_is_one_everywhere(soft: Tensor) -> None:
    assert torch.equal(degraded(soft, Degrade(kind="full"), EVERY_WAY), torch.ones(4, 1, 3, 40, 48))


@pytest.mark.parametrize("how", KINDS, ids=lambda how: how.kind)
@pytest.mark.parametrize("level", [0.0, 0.4])
def test_a_mask_without_a_thing(how: Degrade, level: float) -> None:
    """Nothing at all, or everywhere too faint for a box: no error, no NaN, and no thing comes of it."""
    masks = torch.full((4, 1, 2, 8, 8), level)
    found = degraded(masks, how, EVERY_WAY)
    wanted = {"boundary": level, "truncate": level, "box": 0.0, "full": 1.0}[how.kind]
    assert torch.equal(found, torch.full_like(masks, wanted))


def test_an_empty_frame_does_not_change_its_neighbours(soft: Tensor) -> None:
    masks = soft.clone()
    masks[:, :, 1] = 0
    for how in KINDS[:3]:
        found = degraded(masks, how, EVERY_WAY)
        assert not found[:, :, 1].any()
        assert torch.equal(found[:, :, ::2], degraded(soft, how, EVERY_WAY)[:, :, ::2])


@pytest.mark.parametrize("how", KINDS, ids=lambda how: how.kind)
def test_the_given_masks_stay_and_clips_do_not_depend_on_their_batch(soft: Tensor, how: Degrade) -> None:
    before = soft.clone()
    found = degraded(soft, how, EVERY_WAY)
    assert torch.equal(soft, before)
    assert found.shape == soft.shape
    assert found.is_contiguous()
    assert not torch.equal(found, soft)
    assert 0 <= found.min() <= found.max() <= 1
    for row, number in enumerate(EVERY_WAY):
        alone = degraded(soft[row : row + 1], how, [number])
        assert torch.equal(alone[0], found[row])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU, and pytest -m gpu")
@pytest.mark.parametrize("how", KINDS, ids=lambda how: how.kind)
def test_a_gpu_gives_the_same_masks_bit_for_bit(soft: Tensor, how: Any) -> None:
    found = degraded(soft.cuda(), how, EVERY_WAY)
    assert found.is_cuda
    assert torch.equal(found.cpu(), degraded(soft, how, EVERY_WAY))
