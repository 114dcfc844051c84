"""Xavier-uniform initial values for weights and biases alike (Glorot and Bengio, 2010), as TensorFlow's contrib layers draw them."""

from __future__ import annotations

import math

import torch
from torch import nn

LAYERS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)


def xavier_bias_(bias: torch.Tensor) -> None:
    """Fill a vector of n values from U(-a, a), a = sqrt(3 / n): for shape [n] TensorFlow takes fan_in = fan_out = n."""
    bound = math.sqrt(3.0 / bias.numel())
    with torch.no_grad():
        bias.uniform_(-bound, bound)


def xavier_(module: nn.Module) -> None:
    """Fill every convolution and linear layer within `module`: weights from U(-a, a), a = sqrt(6 / (fan_in + fan_out)); biases as above."""
    for layer in module.modules():
        if isinstance(layer, LAYERS):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                xavier_bias_(layer.bias)
