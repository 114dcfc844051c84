"""AlexNet with a mask head: parameters and shapes at full size, what each option changes, who may learn from what."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fbm_dist.objectives.motion_mask.config import MotionMaskConfig
from fbm_dist.objectives.motion_mask.network import FrameEncoder, MaskNetwork


def build(**settings: Any) -> MaskNetwork:
    torch.manual_seed(0)
    return MaskNetwork(MotionMaskConfig.model_validate({"width": 0.05, "size": 67} | settings))


def test_the_full_size_is_alexnet_and_one_linear_layer() -> None:
    with torch.device("meta"):
        network = MaskNetwork(MotionMaskConfig())
        mask = network(torch.empty(2, 3, 227, 227))
        features = network.encoder(torch.empty(2, 3, 3, 227, 227))
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in network.encoder.named_children()}
    # kernel^2 * in / groups * out + out
    assert count == {
        "conv1": 11 * 11 * 3 * 96 + 96,
        "conv2": 5 * 5 * 48 * 256 + 256,
        "conv3": 3 * 3 * 256 * 384 + 384,
        "conv4": 3 * 3 * 192 * 384 + 384,
        "conv5": 3 * 3 * 192 * 256 + 256,
        "pool5": 0,
        "fc6": 9216 * 4096 + 4096,
        "fc7": 4096 * 4096 + 4096,
    }
    assert sum(p.numel() for p in network.head.parameters()) == 4096 * 3136 + 3136
    assert sum(p.numel() for p in network.parameters()) == 69_716_416
    assert mask.shape == (2, 1, 56, 56)
    assert {name: value.shape for name, value in features.items()} == {
        "conv5": (2, 9216),
        "fc6": (2, 4096),
        "fc7": (2, 4096),
    }


@pytest.mark.parametrize(
    ("settings", "parameters"),
    [
        ({"groups": 1}, 69_716_416 + 5 * 5 * 48 * 256 + 3 * 3 * 192 * (384 + 256)),
        ({"norm": "batch"}, 69_716_416 + 2 * (96 + 256 + 384 + 384 + 256 + 4096 + 4096)),
        ({"norm": "none"}, 69_716_416),
        ({"low_rank": 512}, 56_868_224 + 4096 * 512 + 512 + 512 * 3136 + 3136),
        ({"low_rank": 512, "norm": "batch"}, 56_868_224 + 2 * 9568 + 4096 * 512 + 512 + 2 * 512 + 512 * 3136 + 3136),
        ({"fully_connected": False}, 2_334_080 + 256 * 128 + 128 + 128 * 169 * 3136 + 3136),
        ({"fully_connected": False, "low_rank": 512}, 2_334_080 + 32_896 + 21632 * 512 + 512 + 512 * 3136 + 3136),
    ],
)
def test_options_of_the_released_model_file(settings: dict[str, Any], parameters: int) -> None:
    with torch.device("meta"):
        network = MaskNetwork(MotionMaskConfig.model_validate(settings))
        assert network(torch.empty(2, 3, 227, 227)).shape == (2, 1, 56, 56)
        features = network.encoder.eval()(torch.empty(1, 3, 1, 227, 227))
    assert sum(p.numel() for p in network.parameters()) == parameters
    if not settings.get("fully_connected", True):
        assert {name: value.shape[1] for name, value in features.items()} == {"conv5": 9216, "reduction": 128 * 169}


@pytest.mark.parametrize("fully_connected", [True, False])
@pytest.mark.parametrize(("size", "width"), [(67, 0.05), (99, 0.3), (131, 0.125), (227, 0.05)])
def test_other_sizes_and_widths(size: int, width: float, fully_connected: bool) -> None:
    config = MotionMaskConfig(size=size, width=width, fully_connected=fully_connected)
    with torch.device("meta"):
        network = MaskNetwork(config)
        assert network(torch.empty(1, 3, size, size)).shape == (1, 1, config.mask_side, config.mask_side)


def test_frames_are_normalised_as_imagenets() -> None:
    """RGB from [-1, 1] to [0, 1], minus the mean, divided by the standard deviation: what reaches conv1."""
    network = build()
    seen: list[Tensor] = []
    network.encoder.conv1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    frame = torch.zeros(1, 3, 67, 67)
    frame[0, 0], frame[0, 1], frame[0, 2] = -1.0, 1.0, 0.0
    network(frame)
    expected = [(0 - 0.485) / 0.229, (1 - 0.456) / 0.224, (0.5 - 0.406) / 0.225]
    np.testing.assert_allclose(seen[0].amax((0, 2, 3)), expected, rtol=1e-5)
    np.testing.assert_allclose(seen[0].amin((0, 2, 3)), expected, rtol=1e-5)
    assert not {"encoder.mean", "encoder.deviation"} & dict(network.named_parameters()).keys(), (
        "constants are not learnt"
    )


def test_local_responses_are_normalised_by_hand() -> None:
    """x / (1 + 1e-4 / 5 * sum of squares over 5 neighbouring channels)^0.75 (Krizhevsky et al., 2012, section 3.3)."""
    layer = build().encoder.conv1.responses
    assert isinstance(layer, nn.LocalResponseNorm)
    x = 300 * torch.rand(1, 8, 2, 2)
    padded = np.pad(x.numpy(), ((0, 0), (2, 2), (0, 0), (0, 0)))
    squares = sum(padded[:, k : k + 8] ** 2 for k in range(5))
    np.testing.assert_allclose(layer(x), x.numpy() / (1 + 1e-4 / 5 * squares) ** 0.75, rtol=1e-5)


def test_features_are_means_over_the_frames() -> None:
    encoder = build(norm="batch").encoder.eval()
    video = torch.rand(2, 3, 3, 67, 67) * 2 - 1
    together = encoder(video)
    alone = [encoder(video[:, :, t : t + 1]) for t in range(3)]
    assert list(together) == ["conv5", "fc6", "fc7"]
    for name, value in together.items():
        torch.testing.assert_close(value, torch.stack([one[name] for one in alone]).mean(0))
        assert value.min() >= 0
        assert value.max() > 0


def test_conv5_is_the_pooled_map_in_the_order_channel_row_column() -> None:
    encoder = build(size=99).encoder.eval()
    maps: list[Tensor] = []
    encoder.conv5.register_forward_hook(lambda _, __, out: maps.append(out))
    found = encoder(torch.rand(1, 3, 1, 99, 99))["conv5"].unflatten(1, (16, 2, 2))
    assert maps[0].shape == (1, 16, 5, 5)
    assert torch.equal(found[0, :, 1, 0], maps[0][0, :, 2:5, 0:3].amax((1, 2)))


@pytest.mark.parametrize(
    "settings", [{}, {"norm": "batch"}, {"fully_connected": False, "low_rank": 8, "norm": "batch"}]
)
def test_every_parameter_learns_from_the_mask(settings: dict[str, Any]) -> None:
    network = build(dropout=0.0, width=0.1, **settings)
    network(torch.rand(4, 3, 67, 67)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any() or ("bias" in name and settings.get("norm") == "batch"), name


def test_dropout_is_drawn_in_training_alone() -> None:
    network, frames = build(), torch.rand(2, 3, 67, 67)
    assert not torch.equal(network(frames), network(frames))
    network.eval()
    assert torch.equal(network(frames), network(frames))
    features = network.train().encoder.layers(frames).features
    assert torch.equal(features["fc6"], network.encoder.layers(frames).features["fc6"]), "features come before dropout"


@pytest.mark.parametrize("shape", [(1, 3, 99, 99), (1, 1, 67, 67), (3, 67, 67)])
def test_frames_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    unchecked: Any = getattr(FrameEncoder.layers, "__wrapped__", FrameEncoder.layers)
    with pytest.raises(ValueError, match=r"takes frames of \(n, 3, 67, 67\), got .*set data\.clip\.size=67"):
        unchecked(build().encoder, torch.zeros(shape))  # past jaxtyping, which tests check
