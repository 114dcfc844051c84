"""Xavier-uniform values: their range, for weights and for biases."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from fbm_dist.layers.initialization import xavier_


@pytest.mark.parametrize(
    ("layer", "fans"),
    [
        (nn.Conv3d(8, 24, 3), (8 + 24) * 27),
        (nn.ConvTranspose2d(16, 32, 5), (16 + 32) * 25),
        (nn.Linear(300, 200), 500),
    ],
)
def test_weights_and_biases_fill_their_range(layer: nn.Module, fans: int) -> None:
    torch.manual_seed(0)
    xavier_(nn.Sequential(nn.Identity(), layer))
    bound = math.sqrt(6 / fans)
    assert 0.98 * bound < layer.weight.abs().max() <= bound
    assert abs(layer.weight.mean()) < 0.05 * bound
    # TensorFlow's rule for a vector of n values: fan_in = fan_out = n.
    bound = math.sqrt(6 / (2 * layer.bias.numel()))
    assert 0.8 * bound < layer.bias.abs().max() <= bound


def test_norms_keep_their_own_initial_values() -> None:
    norm = nn.BatchNorm2d(4)
    xavier_(norm)
    assert norm.weight.tolist() == [1] * 4
    assert norm.bias.tolist() == [0] * 4
