"""Each term of FBM's loss against numbers computed by hand."""

from __future__ import annotations

import pytest
import torch

from fbm_dist.objectives.fbm.losses import (
    background_coherency,
    feature_distance,
    foreground_weights,
    other_film,
    reconstruction,
)


@pytest.mark.parametrize(
    ("foreground", "on_foreground", "on_background"),
    [
        (2, 7.0, 1.0),  # (16 - 2) / 2
        (7, 9 / 7, 1.0),
        (8, 1.0, 1.0),  # half: no longer smaller than the background
        (12, 1.0, 1.0),
        (16, 1.0, None),
        (0, None, 0.0),  # the original's empty case: the frame contributes nothing
    ],
)
def test_foreground_weights(foreground: int, on_foreground: float | None, on_background: float | None) -> None:
    mask = (torch.arange(16.0) < foreground).float().reshape(1, 1, 4, 4)
    weights = foreground_weights(mask)
    assert weights.shape == mask.shape
    if on_foreground is not None:
        torch.testing.assert_close(weights[mask == 1], torch.full((foreground,), on_foreground))
    if on_background is not None:
        assert (weights[mask == 0] == on_background).all()


def test_foreground_weights_are_per_clip() -> None:
    mask = torch.zeros(2, 1, 2, 2)
    mask[0, 0, 0, 0] = 1
    assert foreground_weights(mask).tolist() == [[[[3.0, 1.0], [1.0, 1.0]]], [[[0.0, 0.0], [0.0, 0.0]]]]


def test_reconstruction_by_hand() -> None:
    # 2 clips, 3 channels, 1x2 pixels. Clip 0: every channel off by 0.5 and 1; clip 1: exact on the left, off by 2 on the right.
    target = torch.zeros(2, 3, 1, 2)
    image = torch.tensor([[0.5, -1.0], [0.0, 2.0]]).reshape(2, 1, 1, 2).expand(2, 3, 1, 2)
    assert reconstruction(image, target).item() == pytest.approx((0.5 + 1 + 0 + 2) / 4)
    weights = torch.tensor([[3.0, 1.0], [0.0, 0.0]]).reshape(2, 1, 1, 2)
    assert reconstruction(image, target, weights).item() == pytest.approx((3 * 0.5 + 1) / 4)


def test_feature_distance_by_hand_and_its_target_is_constant() -> None:
    moved = torch.full((1, 2, 4, 4), 3.0, requires_grad=True)
    target = torch.ones(1, 2, 4, 4, requires_grad=True)
    loss = feature_distance(moved, target)
    assert loss.item() == 4.0
    loss.backward()
    assert target.grad is None
    assert moved.grad is not None
    assert moved.grad.unique().item() == pytest.approx(2 * 2 / 32)


def test_the_negative_is_the_next_clip_of_another_film() -> None:
    nearest, exists = other_film(torch.tensor([7, 7, 3, 7]))
    assert nearest.tolist() == [2, 2, 3, 2]
    assert exists.all()
    assert not other_film(torch.tensor([5, 5]))[1].any()
    assert not other_film(torch.tensor([5]))[1].any()


def test_coherency_by_hand() -> None:
    # Unit vectors at angles; squared distance = 2 - 2 cos. Lengths do not count.
    background = torch.tensor([[2.0, 0.0], [0.0, 5.0], [3.0, 3.0]])
    reversed_ = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    film = torch.tensor([0, 1, 1])
    # clip 0: near 0, far (clip 1) 2 -> [0 - 2 + .5]_+ = 0
    # clip 1: near 2, far (clip 0; clip 2 is of the same film) 2 -> .5
    # clip 2: near 2 - sqrt 2, far (clip 0) 2 - sqrt 2 -> .5
    assert background_coherency(background, reversed_, film, 0.5).item() == pytest.approx(1.0 / 3)
    # Per tuple, not per batch: the slack of clip 0 does not pay for the others.
    assert background_coherency(background, reversed_, film, 2.5).item() == pytest.approx((0.5 + 2.5 + 2.5) / 3)


def test_coherency_without_another_film_is_zero_and_can_be_learned_from() -> None:
    background = torch.rand(2, 3, requires_grad=True)
    loss = background_coherency(background, torch.rand(2, 3), torch.tensor([4, 4]), 0.5)
    assert loss.item() == 0
    loss.backward()
    assert background.grad is not None
    assert not background.grad.any()


def test_coherency_leaves_the_reversed_clip_constant() -> None:
    background, reversed_ = torch.rand(2, 3, requires_grad=True), torch.rand(2, 3, requires_grad=True)
    background_coherency(background, reversed_, torch.tensor([0, 1]), 2.0).backward()
    assert reversed_.grad is None
    assert background.grad is not None
    assert background.grad.any()
