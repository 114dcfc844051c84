"""The autoencoder: the layers of the original's decoder, its loss by hand, that everything learns, and that it does learn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from fbm_dist.layers.pictures import looking, to_uint8
from fbm_dist.objectives.fbm.autoencoder import Autoencoder, AutoencoderNetwork, Unpooling
from fbm_dist.objectives.fbm.config import AutoencoderConfig, FBMConfig
from fbm_dist.objectives.objective import Segmenter
from tests.fbm_dist.objectives.learning import train


def build(seed: int = 0, **settings: Any) -> Autoencoder:
    torch.manual_seed(seed)
    return AutoencoderConfig.model_validate({"width": 0.05, "size": 64} | settings).build()


def test_the_full_size_has_the_parameters_of_the_originals_layers() -> None:
    with torch.device("meta"):
        network = AutoencoderNetwork(AutoencoderConfig())
    count = {name: sum(p.numel() for p in layer.parameters()) for name, layer in network.decoder.named_children()}
    # 3x3x3: in * out * 27 + out; 2x2x2: in * out * 8 + out; BatchNorm: 2 * out, all but the last.
    assert count == {
        "mapping": 2_097_664 + 1_024,
        **dict.fromkeys(("conv5b", "conv5a", "unpool4", "conv4b"), 7_078_400 + 1_024),  # 512 -> 512
        "conv4a": 3_539_200 + 512,  # 512 -> 256
        **dict.fromkeys(("unpool3", "conv3b"), 1_769_728 + 512),  # 256 -> 256
        "conv3a": 884_864 + 256,  # 256 -> 128
        "unpool2": 442_496 + 256,  # 128 -> 128
        "conv2": 221_248 + 128,  # 128 -> 64
        "unpool1": 110_656 + 128,  # 64 -> 64
        "conv1": 5_187,  # 64 -> 3
        "tanh": 0,
    }
    assert sum(count.values()) == 39_161_795
    assert sum(p.numel() for p in network.encoder.parameters()) == 27_661_440 + 2_098_688  # FBM's


@pytest.mark.parametrize(
    ("size", "sides"),
    [
        (128, {"mapping": (2, 8), "unpool4": (4, 16), "unpool3": (8, 32), "unpool2": (16, 64), "unpool1": (16, 128)}),
        (64, {"mapping": (2, 8), "unpool4": (4, 8), "unpool3": (8, 16), "unpool2": (16, 32), "unpool1": (16, 64)}),
    ],
)
@pytest.mark.parametrize("width", [1.0, 0.3, 0.05])
def test_each_layer_undoes_one_of_the_encoder(width: float, size: int, sides: dict[str, tuple[int, int]]) -> None:
    config = AutoencoderConfig.model_validate({"width": width, "size": size})
    shapes: dict[str, tuple[int, ...]] = {}
    with torch.device("meta"):
        network = AutoencoderNetwork(config)
        for part in (network.encoder.c3d, network.decoder):
            for name, layer in part.named_children():
                key = f"{name} read backwards" if part is network.decoder else name
                layer.register_forward_hook(lambda _, __, out, key=key: shapes.__setitem__(key, tuple(out.shape)))
        out = network(torch.empty(2, 3, 16, size, size))
    assert out.shape == (2, 3, 16, size, size)
    backwards = {name: shapes[f"{name} read backwards"] for name in sides}
    assert {name: (shape[2], shape[3]) for name, shape in backwards.items()} == sides
    assert all(shape[3] == shape[4] for shape in backwards.values())
    # What the decoder hands to the mirror image of a layer has the shape that the layer gave.
    assert backwards["mapping"] == shapes["conv5b"]
    assert shapes["conv5a read backwards"] == shapes["conv4b"]
    assert shapes["conv4a read backwards"][1:2] == shapes["conv3b"][1:2]
    assert shapes["conv3a read backwards"][1:2] == shapes["conv2"][1:2]
    assert shapes["conv2 read backwards"][1:2] == shapes["conv1"][1:2]


@pytest.mark.parametrize("stride", [(2, 2, 2), (1, 2, 2), (2, 1, 1)])
def test_unpooling_is_tensorflows_same_transpose(stride: tuple[int, int, int]) -> None:
    """conv3d_transpose is the gradient of the SAME convolution: of stride 2, total padding 1, of which 0 before; of stride 1, 1 before."""
    torch.manual_seed(0)
    layer = Unpooling(2, stride).double()
    x = torch.randn(2, 2, 2, 3, 4, dtype=torch.float64)
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()  # in, out, 3, 3, 3
    sides = [step * side for step, side in zip(stride, x.shape[2:], strict=True)]
    expected = np.zeros((2, 2, *sides)) + bias[None, :, None, None, None]
    for place in np.ndindex(2, 3, 4):
        for tap in np.ndindex(3, 3, 3):
            to = tuple(s * i + k - (s == 1) for s, i, k in zip(stride, place, tap, strict=True))
            if all(0 <= o < side for o, side in zip(to, sides, strict=True)):
                expected[(..., *to)] += x.numpy()[(..., *place)] @ weight[(..., *tap)]
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, atol=1e-12)


def test_the_loss_by_hand(make_clip: Any) -> None:
    """With the last layer's weights at 0 every pixel is tanh(bias): |tanh(bias) - pixel|, averaged over everything."""
    objective = build()
    with torch.no_grad():
        objective.model.decoder.conv1.weight.zero_()
        objective.model.decoder.conv1.bias.copy_(torch.tensor([0.0, 0.5, -2.0]))
    clip = make_clip(2)
    clip.video[0] = 0.25
    clip.video[1] = -1.0
    clip.video[1, :, 8:] = 1.0  # half of the frames of the second clip
    loss = objective("model", clip)
    made = np.tanh([0.0, 0.5, -2.0])
    expected = np.mean([abs(made - 0.25), (abs(made + 1) + abs(made - 1)) / 2])
    assert loss.total.item() == pytest.approx(expected, rel=1e-6)
    assert list(loss.terms) == ["rec_clip"]
    assert loss.terms["rec_clip"].item() == loss.total.item()
    assert not loss.terms["rec_clip"].requires_grad


def test_masks_are_not_looked_at(make_clip: Any) -> None:
    clip = make_clip(2)
    with_mask, without = (build()("model", c).total for c in (clip, replace(clip, mask=None)))
    assert torch.equal(with_mask, without)
    assert build().visualize(replace(clip, mask=None))


def test_every_frame_teaches_every_part(make_clip: Any) -> None:
    """FBM holds the first and the last frame against its targets; the autoencoder all of them, through the whole bottleneck."""
    clip = make_clip(2)
    for t in (0, 7, 15):
        objective = build()
        (objective.model(clip.video)[:, :, t] - clip.video[:, :, t]).abs().mean().backward()
        for name, parameter in objective.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
        rows = objective.encoder().mapping.convolution.weight.grad.flatten(1).any(dim=1)
        channels = objective.encoder().channels
        for part in rows.split([channels.background, channels.foreground, channels.motion]):
            assert part.any()
        assert objective.model.decoder.mapping.convolution.weight.grad.any()


def test_each_layer_runs_once(make_clip: Any) -> None:
    """No reversed clip: the running statistics move once a step."""
    objective = build()
    objective("model", make_clip(2))
    seen = {int(b) for name, b in objective.named_buffers() if name.endswith("num_batches_tracked")}
    assert seen == {1}


def test_it_overfits_one_clip(make_clip: Any) -> None:
    """All grey would be the mean size of a pixel; measured over seeds after 60 steps: 0.53 to 0.57 of it."""
    clip = make_clip(1)
    curve = [step["total"] for step in train(build(width=0.1), clip, steps=60)]
    grey = clip.video.abs().mean().item()
    assert curve[0] > 2 * grey
    assert curve[-1] < 0.75 * grey, curve[::10]


def test_the_same_seed_gives_the_same_bits(make_clip: Any) -> None:
    first, second, other = (build(seed) for seed in (1, 1, 2))
    curves = [train(objective, make_clip(2), steps=2) for objective in (first, second, other)]
    assert curves[0] == curves[1] != curves[2]
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_its_encoder_is_fbms(make_clip: Any) -> None:
    """One architecture, one set of names: the weights of one fill the other, and features have FBM's names and lengths."""
    objective = build()
    train(objective, make_clip(2), steps=1)
    fbm = FBMConfig(width=0.05, size=64).build()
    fbm.encoder().load_state_dict(objective.encoder().state_dict())
    clip = make_clip(2, seed=3)
    ours, theirs = objective.eval().features(clip), fbm.eval().features(clip)
    assert list(ours) == ["foreground", "background", "motion"]
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert objective.encoder() is objective.model.encoder


def test_it_has_no_foreground_to_tell() -> None:
    assert not isinstance(build(), Segmenter)


def test_each_variable_decays_once() -> None:
    objective = build()
    factor = {name: objective.weight_decay(name, p) for name, p in objective.named_parameters()}
    assert factor["model.encoder.c3d.conv3b.convolution.weight"] == 1
    assert factor["model.decoder.unpool2.convolution.bias"] == 1
    assert factor["model.decoder.conv1.bias"] == 1
    assert factor["model.decoder.unpool2.norm.weight"] == 0
    assert {name for name, value in factor.items() if value == 0} == {name for name in factor if ".norm." in name}
    assert set(factor.values()) == {0.0, 1.0}
    # A trainer that wraps `objective.model` sees the names without their first part.
    assert objective.weight_decay("decoder.conv2.norm.bias", next(objective.parameters())) == 0


@pytest.mark.filterwarnings("ignore:TF32 acceleration:UserWarning")
def test_bf16_autocast_keeps_the_loss_in_fp32_and_every_gradient(make_clip: Any) -> None:
    """Rounding turns the gradient a little at each layer that it passes: no layer turns it at once (measured: 0.96 and 0.83 to 0.87)."""
    clip = make_clip(2)
    gradients: list[list[Tensor]] = []
    for enabled in (False, True):
        objective = build()
        with torch.backends.mkldnn.flags(enabled=not enabled):  # as `start` has it for bf16
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
                loss = objective("model", clip)
            assert loss.total.dtype == torch.float32
            loss.total.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in objective.parameters())
        layers = (objective.model.decoder.unpool2, objective.encoder().mapping)
        gradients.append([layer.convolution.weight.grad.flatten() for layer in layers])
    near, far = (torch.nn.functional.cosine_similarity(a, b, dim=0) for a, b in zip(*gradients, strict=True))
    assert near > 0.9
    assert far > 0.7


def test_the_picture_shows_four_frames_above_what_is_made_of_them(make_clip: Any) -> None:
    objective = build().train()
    objective.model.decoder.eval()  # some part that is not in train mode stays so
    clip = make_clip(10)
    state = {name: value.clone() for name, value in objective.state_dict().items()}
    picture = objective.visualize(clip)["reconstruction"]
    assert picture.dtype == torch.uint8
    titles = picture.shape[1] - (64 * 2 + 2)
    assert 8 <= titles <= 20
    assert picture.shape == (8, titles + 64 * 2 + 2, 64 * 4 + 3 * 2, 3)
    with looking(objective):
        made = objective.model(clip.video[:8])
    for column, t in enumerate((0, 5, 10, 15)):
        left = column * 66
        above, below = picture[:, titles : titles + 64, left : left + 64], picture[:, -64:, left : left + 64]
        assert torch.equal(above, to_uint8(clip.video[:8, :, t]))
        assert torch.equal(below, to_uint8(made[:, :, t]))
    assert objective.model.encoder.training
    assert not objective.model.decoder.training
    assert all(torch.equal(value, state[name]) for name, value in objective.state_dict().items())


def test_a_clip_of_another_shape_is_refused(make_clip: Any) -> None:
    with pytest.raises(ValueError, match=r"takes video of \(b, 3, 16, 64, 64\), got .*data\.clip\.size=64"):
        build()("model", make_clip(1, size=128))


@pytest.mark.parametrize("settings", [{"frames": 8}, {"size": 96}, {"double_decay": True}, {"mask_threshold": 0.5}])
def test_what_it_cannot_do_is_no_config(settings: dict[str, Any]) -> None:
    """It has nothing to decay twice and looks at no mask."""
    with pytest.raises(ValidationError):
        AutoencoderConfig.model_validate(settings)
