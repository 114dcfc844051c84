"""The base networks against their papers and Caffe files: parameters, sides, initial values, Caffe's arithmetic."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from fbm_dist.objectives.coherency.architectures import ARCHITECTURES, Name, sides, smallest
from fbm_dist.objectives.coherency.config import CoherencyConfig, SiameseLoss
from fbm_dist.objectives.coherency.network import CoherencyEncoder

SMALL = {"size": 64, "width": 0.1}


def build(seed: int = 0, **settings: object) -> Any:
    torch.manual_seed(seed)
    return CoherencyConfig.model_validate(SMALL | settings).build_encoder()


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def on_meta(**settings: object) -> CoherencyEncoder:
    with torch.device("meta"):
        return CoherencyConfig.model_validate(settings).build_encoder()


def test_the_full_size_has_the_parameters_of_the_authors_network() -> None:
    """in / groups * out * kernel^2 + out for each layer."""
    encoder = on_meta(loss={"kind": "siamese"})
    assert {name: count(layer) for name, layer in encoder.trunk.named_children() if count(layer)} == {
        "conv1": 3 * 96 * 49 + 96,
        "conv2": 48 * 384 * 25 + 384,
        "conv3": 384 * 512 * 9 + 512,
        "conv4": 256 * 512 * 9 + 512,
        "conv5": 256 * 384 * 9 + 384,
    }
    assert count(encoder.linear["fc6"]) == 13_824 * 4096 + 4096  # 384 x 6 x 6
    assert count(encoder.linear["fc7"]) == 4096 * 4096 + 4096
    assert count(encoder) == 77_719_168
    assert count(on_meta()) == 77_719_168 - 3072 * 4097 == 65_133_184  # the Quadruplet's fc7 has 1024 units


@pytest.mark.parametrize(
    ("network", "size", "parameters", "shapes"),
    [
        # Caffe's bvlc_alexnet without fc8: 60,965,224 - 4,097,000 with fc7 of 4096; here 1024
        ("alexnet", 227, 60_965_224 - 4_097_000 - 3072 * 4097, {"fc6": 4096, "fc7": 1024}),
        # cifar10_quick without ip2: 145,578 - 650
        ("cifar_quick", 32, 145_578 - 650, {"fc6": 64}),
        # bvlc_googlenet without its heads has 6,998,552, of which 1,025,000 classify; fc6 has 1024 units
        ("googlenet", 224, 6_998_552 - 1_025_000 + 1_049_600, {"fc6": 1024}),
    ],
)
def test_other_networks_have_the_parameters_of_their_caffe_files(
    network: Name, size: int, parameters: int, shapes: dict[str, int]
) -> None:
    encoder = on_meta(network=network, size=size)
    assert count(encoder) == parameters
    with torch.device("meta"):
        features = encoder(torch.empty(2, 3, 4, size, size))
    expected = {name + end: (2, units) for name, units in shapes.items() for end in ("", "_pre")}
    assert {name: tuple(value.shape) for name, value in features.items()} == expected


def test_the_embedding_is_as_long_as_the_paper_says() -> None:
    units = {kind: CoherencyConfig.model_validate({"loss": {"kind": kind}}).units for kind in ("siamese", "sfa")}
    assert units == {"siamese": 4096, "sfa": 4096}
    assert CoherencyConfig().units == 1024
    assert CoherencyConfig(width=0.125).units == 128
    assert CoherencyConfig(loss=SiameseLoss(), width=0.125, embedding=10).units == 10


@pytest.mark.parametrize("network", ARCHITECTURES)
@pytest.mark.parametrize("extra", [0, 1, 2, 3, 15])
def test_the_table_says_the_sides_that_torch_makes(network: Name, extra: int) -> None:
    size = max(smallest(network), 16) + extra
    encoder = on_meta(network=network, size=size, width=0.05)
    made = {}
    x = torch.empty(1, 3, size, size, device="meta")
    for name, layer in encoder.trunk.named_children():
        x = layer(x)
        made[name] = x.shape[-1]
    assert made == sides(network, size)
    encoder(torch.empty(1, 3, 1, size, size, device="meta"))


def test_the_sides_of_the_originals() -> None:
    """Caffe's ceil-mode pooling: 111 -> 55, 26 -> 13, 13 -> 6."""
    found = sides("caffenet_zf", 227)
    assert [found[name] for name in ("conv1", "pool1", "conv2", "pool2", "conv5", "pool5")] == [111, 55, 26, 13, 13, 6]
    assert [*sides("cifar_quick", 32).values()][-1] == 4
    assert sides("googlenet", 224)["inception5b"] == 7


@pytest.mark.parametrize(("network", "size"), [("caffenet_zf", 48), ("alexnet", 38), ("googlenet", 30)])
def test_a_size_that_leaves_no_map_is_refused(network: Name, size: int) -> None:
    told = rf"size={size} leaves no map after \w+ of {network}; give at least {size + 1} "
    with pytest.raises(ValidationError, match=told):
        CoherencyConfig(network=network, size=size)


@pytest.mark.parametrize("width", [0.01, 0.05, 0.3])
@pytest.mark.parametrize("network", ARCHITECTURES)
def test_any_width_divides_into_groups(network: Name, width: float) -> None:
    size = max(64, smallest(network))
    encoder = on_meta(network=network, size=size, width=width)
    with torch.device("meta"):
        found = encoder(torch.empty(1, 3, 2, size, size))
    assert {name: vector.shape for name, vector in found.items() if name.endswith("_pre")} == {
        f"{name}_pre": (1, linear.out_features) for name, linear in encoder.linear.items()
    }


def test_the_authors_initial_values() -> None:
    encoder = build(width=0.5)
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            assert module.bias is not None
            assert (module.bias == 0.1).all()
            assert module.weight.std().item() == pytest.approx(0.01, rel=0.1)
            assert abs(module.weight.mean().item()) < 1e-3


def test_he_keeps_the_variance_of_what_a_layer_is_given() -> None:
    """At small widths the authors' values do not: a deep layer gives its bias and little else. What the frames change of fc7_pre:"""
    torch.manual_seed(1)
    frames = nn.functional.interpolate(torch.rand(32, 3, 8, 8) * 2 - 1, size=64)
    share = {}
    for initialization in ("he", "original"):
        values = build(initialization=initialization).layers(frames)["fc7_pre"]
        share[initialization] = (values.std(dim=0).mean() / values.square().mean().sqrt()).item()
    assert share["he"] > 10 * share["original"]


def test_other_networks_have_their_own_initial_values() -> None:
    quick = build(network="cifar_quick", width=1)
    conv1, fc6 = quick.trunk.conv1.convolution, quick.linear["fc6"]
    assert conv1.weight.std().item() == pytest.approx(1e-4, rel=0.1)
    assert fc6.weight.std().item() == pytest.approx(0.1, rel=0.1)
    assert not conv1.bias.any()
    inception = build(network="googlenet")
    three = inception.trunk.inception3a.three[1].convolution
    assert three.weight.abs().max().item() == pytest.approx(np.sqrt(3 / (three.in_channels * 9)), rel=0.02)
    assert (three.bias == 0.2).all()


def test_frames_become_caffes_pixels() -> None:
    """RGB in [-1, 1] -> blue, green, red in [0, 255] without their means; the first layer sees nothing else."""
    encoder = build(network="caffenet_zf")
    seen = []
    encoder.trunk.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    colour = torch.tensor([1.0, 0.0, -1.0]).view(1, 3, 1, 1).expand(1, 3, 64, 64)
    encoder.layers(colour)
    assert seen[0][0, :, 5, 7].tolist() == pytest.approx([0 - 103.939, 127.5 - 116.779, 255 - 123.68])
    he = build(initialization="he")
    he.trunk.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    he.layers(colour)
    torch.testing.assert_close(seen[1] * 70, seen[0])


def test_response_norm_is_caffes() -> None:
    """x / (1 + alpha / 5 * sum of the squares of 5 channels)^beta."""
    norm = build().trunk.norm1
    x = torch.randn(1, 7, 2, 2) * 100
    squares = np.pad((x.numpy() ** 2), ((0, 0), (2, 2), (0, 0), (0, 0)))
    sums = sum(squares[:, i : i + 7] for i in range(5))
    np.testing.assert_allclose(norm(x).numpy(), x.numpy() / (1 + 1e-4 / 5 * sums) ** 0.75, rtol=1e-4)


def test_averages_at_the_edge_are_over_what_lies_inside() -> None:
    """Caffe's: cifar_quick's 16 -> 8, whose last window covers two rows and columns."""
    pool = build(network="cifar_quick").trunk.pool2
    x = torch.arange(16.0 * 16).view(1, 1, 16, 16)
    assert pool(x).shape == (1, 1, 8, 8)
    assert pool(x)[0, 0, 7, 7].item() == x[0, 0, 14:, 14:].mean().item()


def test_features_are_means_over_frames() -> None:
    encoder = build()
    video = torch.rand(2, 3, 5, 64, 64) * 2 - 1
    whole = encoder(video)
    assert list(whole) == ["fc6", "fc6_pre", "fc7", "fc7_pre"]
    single = [encoder(video[:, :, t : t + 1]) for t in range(5)]
    for name, value in whole.items():
        torch.testing.assert_close(value, torch.stack([one[name] for one in single]).mean(dim=0))
    torch.testing.assert_close(single[0]["fc6"], single[0]["fc6_pre"].clamp(min=0))
    torch.testing.assert_close(encoder.embed(video[:, :, 0]), single[0]["fc7"])


@pytest.mark.parametrize("shape", [(1, 3, 2, 96, 96), (1, 1, 2, 64, 64)])
def test_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"takes frames of \(3, 64, 64\), got .*set data.clip.size=64"):
        build()(torch.zeros(shape))
