"""The trimap and the loss on certain pixels, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fbm_dist.objectives.motion_mask.losses import Trimap, logistic, overlap, reduced, trimap


def test_scores_are_averaged_over_what_a_pixel_covers() -> None:
    mask = torch.arange(16.0).view(1, 1, 4, 4) / 16
    expected = mask.numpy().reshape(2, 2, 2, 2).mean((1, 3))
    np.testing.assert_allclose(reduced(mask, 2)[0, 0], expected)


def test_a_boundary_is_uncertain_because_scores_are_reduced_first() -> None:
    """An edge through the middle of a pixel makes it half foreground: neither. The trimap first would have called it certain."""
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :3] = 1  # columns 0 to 2 of 8; in pixels of two: 1, one half, 0, 0
    found = trimap(reduced(mask, 4), 0.4, 0.7)
    assert found.positive[0, 0, 0].tolist() == [True, False, False, False]
    assert found.negative[0, 0, 0].tolist() == [False, False, True, True]
    assert found.certain[0, 0, 0].tolist() == [True, False, True, True]


def test_the_thresholds_themselves_are_uncertain() -> None:
    found = trimap(torch.tensor([0.25, 0.375, 0.75, 0.875]).view(1, 1, 2, 2), 0.375, 0.75)
    assert found.negative.flatten().tolist() == [True, False, False, False]
    assert found.positive.flatten().tolist() == [False, False, False, True]


def test_the_loss_by_hand() -> None:
    """log(1 + exp(-y x)) on certain pixels, summed or over all pixels, mean over clips; the clip without certain pixels adds 0."""
    generator = np.random.default_rng(0)
    logits, scores = generator.normal(0, 2, (3, 1, 4, 4)), generator.uniform(0, 1, (3, 1, 4, 4))
    scores[2] = 0.55
    expected = 0.0
    for x, s in zip(logits.ravel(), scores.ravel(), strict=True):
        if s > 0.7:
            expected += np.log(1 + np.exp(-x))
        elif s < 0.4:
            expected += np.log(1 + np.exp(x))
    target = trimap(torch.from_numpy(scores), 0.4, 0.7)
    assert logistic(torch.from_numpy(logits), target, "sum").item() == pytest.approx(expected / 3, rel=1e-6)
    assert logistic(torch.from_numpy(logits), target, "mean").item() == pytest.approx(expected / 3 / 16, rel=1e-6)


def test_uncertain_pixels_teach_nothing() -> None:
    logits = torch.zeros(1, 1, 2, 2, requires_grad=True)
    logistic(logits, trimap(torch.tensor([0.1, 0.5, 0.6, 0.9]).view(1, 1, 2, 2), 0.4, 0.7), "sum").backward()
    assert logits.grad is not None
    assert logits.grad.flatten().tolist() == pytest.approx([0.5, 0, 0, -0.5])


@pytest.mark.parametrize("extreme", [0.0, 1e4, float("inf")])
def test_no_certain_pixel_at_all_is_zero_and_no_nan(extreme: float) -> None:
    logits = torch.full((2, 1, 2, 2), extreme, requires_grad=True)
    nothing = torch.zeros(2, 1, 2, 2, dtype=torch.bool)
    loss = logistic(logits, Trimap(nothing, nothing), "mean")
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    if np.isfinite(extreme):
        assert not logits.grad.any()


def test_a_batch_is_the_mean_of_its_parts() -> None:
    """Hence micro-batches and ranks of equal size add up to the whole batch, however the certain pixels are dealt."""
    torch.manual_seed(0)
    logits, target = torch.randn(4, 1, 6, 6), trimap(torch.rand(4, 1, 6, 6), 0.4, 0.7)
    halves = [
        logistic(logits[part], Trimap(target.positive[part], target.negative[part]), "mean")
        for part in (slice(0, 2), slice(2, 4))
    ]
    torch.testing.assert_close(sum(halves) / 2, logistic(logits, target, "mean"))


def test_overlap_by_hand() -> None:
    found = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]], dtype=torch.bool).view(3, 1, 2, 2)
    wanted = torch.tensor([[0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 1]], dtype=torch.bool).view(3, 1, 2, 2)
    assert overlap(found, wanted).item() == pytest.approx((1 / 3 + 1 + 0) / 3)
    within = torch.tensor([1, 1, 0, 1], dtype=torch.bool).view(1, 1, 2, 2).expand(3, -1, -1, -1)
    assert overlap(found, wanted, within).item() == pytest.approx((1 / 2 + 1 + 0) / 3)
