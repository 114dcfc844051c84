"""The networks of DrNet: the size of the full ones, shapes of every architecture, codes of unit length, skips that carry maps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fbm_dist.objectives.drnet.config import DrNetAutoencoderConfig, DrNetConfig, DrNetPredictionConfig
from fbm_dist.objectives.drnet.frames import frame_encoder, unit_range

KTH: dict[str, Any] = {"size": 128, "content": "vgg", "pose": "resnet", "skips": True}
SUNCG: dict[str, Any] = {"content": "resnet", "pose": "resnet", "pose_dim": 10}


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def convolution(i: int, o: int, kernel: int) -> int:
    """With its bias and BatchNorm."""
    return i * o * kernel**2 + 3 * o


@pytest.mark.parametrize(
    ("settings", "content", "pose", "decoder"),
    [
        ({}, 3_807_424, 2_799_439, 3_848_003),
        ({"skips": True}, 3_807_424, 2_799_439, 6_603_587),
        ({"size": 128}, 8_003_264, 6_995_279, 8_043_843),
        (KTH, 15_772_096, 44_782_735, 21_305_411),
        (SUNCG, 11_762_176, 11_218_078, 3_888_963),
    ],
)
def test_sizes_of_the_full_networks(settings: dict[str, Any], content: int, pose: int, decoder: int) -> None:
    with torch.device("meta"):
        objective = DrNetConfig.model_validate(settings).build()
    model = objective.model
    assert (count(model.encoder.content), count(model.encoder.pose), count(model.decoder)) == (content, pose, decoder)
    p = objective.config.pose_dim
    assert count(objective.critic) == (2 * p + 1) * 100 + 101 * 100 + 101  # two hidden layers of 100 units


def test_sizes_are_those_of_the_layers_that_the_original_lists() -> None:
    """Counted by hand: DCGAN at 64, VGG-16's 13 convolutions, the decoder of the KTH network."""
    with torch.device("meta"):
        dcgan, vgg = DrNetConfig().build().model, DrNetConfig.model_validate(KTH).build().model
    stages = [(3, 64), (64, 128), (128, 256), (256, 512)]
    assert count(dcgan.encoder.content) == sum(convolution(*s, 4) for s in stages) + convolution(512, 128, 4)
    ups = [(512, 256), (256, 128), (128, 64)]
    assert count(dcgan.decoder) == convolution(133, 512, 4) + sum(convolution(*s, 4) for s in ups) + 64 * 3 * 16 + 3
    layers = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), *[(256, 256)] * 2, (256, 512), *[(512, 512)] * 5]
    assert count(vgg.encoder.content) == sum(convolution(*s, 3) for s in layers) + convolution(512, 128, 4)
    back = [(1024, 512), (512, 512), (512, 512), (1024, 512), (512, 512), (512, 256)]
    back += [(512, 256), (256, 256), (256, 128), (256, 128), (128, 64), (128, 64)]
    assert count(vgg.decoder) == convolution(133, 512, 4) + sum(convolution(*s, 3) for s in back) + 64 * 3 * 9 + 3


def test_sizes_of_the_baselines() -> None:
    with torch.device("meta"):
        single = DrNetAutoencoderConfig().build()
        paper, lstm = DrNetPredictionConfig().build(), DrNetPredictionConfig(trunk=DrNetAutoencoderConfig()).build()
        dcgan = DrNetConfig().build().model
    assert count(single.model.decoder) == count(dcgan.decoder), "the same decoder"
    assert count(single.model.encoder) == count(dcgan.encoder.content) + 5 * (512 * 16 + 3), "a code longer by 5"
    cells = 2 * 4 * 256 * (256 + 256 + 2)
    assert count(paper.predictor) == 134 * 256 + cells + 257 * 5
    assert count(lstm.predictor) == 134 * 256 + cells + 257 * 133


@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize(
    ("content", "skips"), [("dcgan", False), ("dcgan", True), ("vgg", False), ("vgg", True), ("resnet", False)]
)
@pytest.mark.parametrize("pose", ["dcgan", "resnet"])
def test_every_architecture_makes_frames_of_its_size(size: Any, content: Any, pose: Any, skips: bool) -> None:
    config = DrNetConfig(size=size, content=content, pose=pose, skips=skips, width=0.05, content_dim=12, pose_dim=3)
    torch.manual_seed(0)
    model = config.build().model
    video = torch.rand(2, 3, 4, size, size) * 2 - 1
    still, moving = model.encoder.still(video[:, :, 0]), model.encoder.moving(video[:, :, 1])
    assert (still.content.shape, moving.shape) == ((2, 12), (2, 3))
    image = model.decode(still, moving)
    assert image.shape == (2, 3, size, size)
    assert 0 < image.min() < image.max() < 1, "the sigmoid's"
    features = model.encoder.eval()(video)
    assert {name: tuple(value.shape) for name, value in features.items()} == {"content": (2, 12), "pose": (2, 12)}


def test_the_decoder_sees_the_maps_of_the_content_frame_only_with_skips() -> None:
    code, maps = (
        torch.rand(2, 15),
        tuple(torch.rand(2, c, 64 // 2**i, 64 // 2**i) for i, c in enumerate((8, 8, 16, 24), 1)),
    )
    for skips in (False, True):
        torch.manual_seed(0)
        config = DrNetConfig(width=0.05, skips=skips, content_dim=12, pose_dim=3)
        decoder = config.build().model.decoder.eval()
        plain = decoder(code, maps)
        for level in range(len(maps)):
            changed = tuple(m + (i == level) for i, m in enumerate(maps))
            assert torch.equal(decoder(code, changed), plain) is not skips, f"level {level}"


@pytest.mark.parametrize("code", ["unit", "tanh"])
def test_codes_are_of_unit_length_or_within_one(code: Any) -> None:
    torch.manual_seed(0)
    encoder = frame_encoder("dcgan", 64, 0.05, 6, code)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, maps = encoder(torch.rand(8, 3, 64, 64))
    assert found.dtype == torch.float32
    length = found.norm(dim=1)
    assert found.abs().max() < 1
    assert torch.allclose(length, torch.ones(8), atol=1e-5) is (code == "unit")
    assert [m.shape[2] for m in maps] == [32, 16, 8, 4]


def test_initial_values_are_the_authors() -> None:
    torch.manual_seed(0)
    for architecture in ("dcgan", "vgg", "resnet"):
        for layer in frame_encoder(architecture, 64, 0.5, 128, "unit").modules():  # type: ignore[arg-type]
            if isinstance(layer, nn.Conv2d):
                assert layer.weight.std().item() == pytest.approx(0.02, rel=0.1)
                assert layer.bias is None or not layer.bias.any()
            if isinstance(layer, nn.BatchNorm2d):
                assert layer.weight.mean().item() == pytest.approx(1, abs=0.02)
                assert not layer.bias.any()


def test_frames_are_shown_in_the_range_of_the_paper() -> None:
    """[0, 1]: black is 0, what convolutions pad with."""
    seen: list[Tensor] = []
    model = DrNetConfig(width=0.05).build().model
    model.encoder.content.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model.encoder.still(torch.full((2, 3, 64, 64), -1.0))
    assert not seen[0].any()
    assert torch.equal(unit_range(torch.tensor([[[-1.0, 0.0, 1.0]]])), torch.tensor([[[0.0, 0.5, 1.0]]]))


def test_a_video_of_another_shape_is_refused() -> None:
    encoder = DrNetConfig(width=0.05).build_encoder()
    for shape in ((2, 3, 5, 64, 64), (2, 3, 4, 32, 32), (2, 1, 4, 64, 64)):
        with pytest.raises(ValueError, match=r"takes video of \(b, 3, 4, 64, 64\).*objective\.frames"):
            encoder(torch.zeros(shape))
