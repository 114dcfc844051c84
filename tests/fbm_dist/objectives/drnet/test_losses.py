"""DrNet's terms by hand: equations 1 to 4 in numpy, what is constant in them, and a batch without strangers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fbm_dist.objectives.drnet.losses import reconstruction, scene, similarity, uncertainty

ONE, NONE = torch.tensor(1.0), torch.tensor(0.0)


def test_reconstruction_and_similarity_are_mean_squares() -> None:
    image, frame = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    assert reconstruction(image, frame).item() == pytest.approx(np.mean((image.numpy() - frame.numpy()) ** 2))
    content, other = torch.tensor([[1.0, 0.0], [0.5, 0.5]]), torch.tensor([[0.0, 2.0], [0.5, 0.0]])
    assert similarity(content, other).item() == pytest.approx((1 + 4 + 0 + 0.25) / 4)


def test_losses_are_float32_of_bf16() -> None:
    a, b = torch.rand(2, 3, 4, 4).bfloat16(), torch.rand(2, 3, 4, 4)
    assert reconstruction(a, b).dtype == torch.float32
    assert similarity(torch.rand(2, 3).bfloat16(), torch.rand(2, 3).bfloat16()).dtype == torch.float32


def test_similarity_leaves_the_other_frame_constant() -> None:
    content, other = torch.rand(2, 3, requires_grad=True), torch.rand(2, 3, requires_grad=True)
    similarity(content, other).backward()
    assert other.grad is None
    assert content.grad is not None
    assert content.grad.any()


def test_the_critics_cross_entropy_by_hand() -> None:
    """-log C on pairs of one clip, -log(1 - C) on strangers, half each."""
    same, different = np.array([2.0, -1.0]), np.array([0.0, 3.0])
    probability = [1 / (1 + np.exp(-x)) for x in (same, different)]
    expected = (-np.log(probability[0]).mean() - np.log(1 - probability[1]).mean()) / 2
    found = scene(torch.tensor(same).float(), torch.tensor(different).float(), ONE)
    assert found.item() == pytest.approx(expected)
    assert scene(torch.zeros(3), torch.zeros(3), ONE).item() == pytest.approx(math.log(2)), "it knows nothing"


def test_without_strangers_the_critic_learns_nothing_but_has_a_gradient() -> None:
    logits = torch.rand(3, requires_grad=True)
    loss = scene(logits, logits, NONE)
    assert loss.item() == 0
    loss.backward()
    assert logits.grad is not None
    assert not logits.grad.any()


def test_uncertainty_is_least_where_the_critic_knows_nothing() -> None:
    """-(log C + log(1 - C)) / 2: eq. 4 with the halves in front of both."""
    logits = np.array([-2.0, 0.0, 1.0])
    p = 1 / (1 + np.exp(-logits))
    expected = np.mean(-(np.log(p) + np.log(1 - p)) / 2)
    assert uncertainty(torch.tensor(logits).float()).item() == pytest.approx(expected)
    assert uncertainty(torch.zeros(2)).item() == pytest.approx(math.log(2))
    either = [uncertainty(torch.tensor([x])).item() for x in (-1.0, 1.0)]
    assert either[0] == pytest.approx(either[1])
    assert either[0] > math.log(2)
