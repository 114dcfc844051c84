"""The FBM network against the original: counts, shapes, and convolution arithmetic by brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fbm_dist.objectives.fbm.config import FBMConfig
from fbm_dist.objectives.fbm.decoders import Deconvolution
from fbm_dist.objectives.fbm.encoder import Channels
from fbm_dist.objectives.fbm.kernels import CrossConvolution, KernelDecoder, cross_convolve
from fbm_dist.objectives.fbm.network import FBMNetwork


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_full_size_has_the_papers_parameters() -> None:
    with torch.device("meta"):
        network = FBMNetwork(FBMConfig())
    # conv: in*out*27 + out. 3->64 5,248; 64->128 221,312; 128->256 884,992; 256->256 1,769,728; 256->512 3,539,456;
    # three times 512->512 7,078,400. BatchNorm: 2 * (64 + 128 + 2*256 + 4*512) = 5,504.
    assert count(network.encoder.c3d) == 5_248 + 221_312 + 884_992 + 1_769_728 + 3_539_456 + 3 * 7_078_400 + 5_504
    assert count(network.encoder.c3d) == 27_661_440  # 27.66M
    # 512*512*8 + 512 and BatchNorm 1,024.
    assert count(network.encoder.mapping) == 2_097_152 + 512 + 1_024  # 2.10M
    # 1x1: 170*1024 + 1024; 5x5: in*out*25 + out for 1024->512, 512->512, 512->256, 256->128, 128->3;
    # BatchNorm 2 * (1024 + 512 + 512 + 256 + 128) = 4,864.
    image = 175_104 + 13_107_712 + 6_554_112 + 3_277_056 + 819_328 + 9_603 + 4_864
    assert count(network.foreground_decoder) == count(network.background_decoder) == image == 23_947_779  # 23.95M
    # 3x3: 172->2304 3,568,896; twice 2304->2304 47,778,048; BatchNorm after the first two: 2 * 2 * 2304.
    assert count(network.kernel_decoder) == 3_568_896 + 2 * 47_778_048 + 9_216 == 99_134_208  # 99.13M
    # 170*48 + 48 + 2*48; 48*170 + 170 + 2*170; the shared bias of 48.
    assert count(network.cross_convolution) == 8_304 + 8_670 + 48  # 0.017M
    assert count(network) == 176_806_916  # 176.8M


def test_the_full_size_gives_the_papers_shapes() -> None:
    with torch.device("meta"):
        out = FBMNetwork(FBMConfig())(torch.empty(2, 3, 16, 128, 128))
    assert [tuple(m.shape) for m in out.bottleneck] == [(2, 170, 4, 4), (2, 170, 4, 4), (2, 172, 4, 4)]
    assert {tuple(image.shape) for image in out[:3]} == {(2, 3, 128, 128)}
    assert tuple(out.last_features.shape) == (2, 170, 4, 4)


@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("width", [0.05, 0.2, 0.3])
def test_any_width_keeps_the_bottleneck_at_4x4(width: float, size: int) -> None:
    config = FBMConfig.model_validate({"width": width, "size": size})
    with torch.device("meta"):
        out = FBMNetwork(config)(torch.empty(2, 3, 16, size, size))
    channels = Channels.of(width)
    assert out.bottleneck.motion.shape == (2, channels.motion, 4, 4)
    assert channels.foreground + channels.background + channels.motion == channels.bottleneck
    assert {image.shape for image in out[:3]} == {(2, 3, size, size)}


def test_width_one_is_the_original_and_a_quarter_is_a_quarter() -> None:
    assert Channels.of(1.0) == ((64, 128, 256, 512), 512, 170, 170, 172, (1024, 512, 512, 256, 128), 48)
    assert Channels.of(0.25) == ((16, 32, 64, 128), 128, 42, 42, 44, (256, 128, 128, 64, 32), 12)


def test_the_bottleneck_is_split_in_the_originals_order() -> None:
    """Channels 0 to 169 background, 170 to 339 foreground, 340 to 511 motion (here a fraction), after the ReLU."""
    encoder = FBMConfig(width=0.05, size=64).build_encoder().eval()
    channels = encoder.channels
    with torch.no_grad():
        encoder.mapping.norm.weight.zero_()
        encoder.mapping.norm.bias.copy_(torch.arange(channels.bottleneck) - 1.0)
    maps = encoder.maps(torch.zeros(1, 3, 16, 64, 64))
    order = torch.cat([maps.background, maps.foreground, maps.motion], dim=1)[0, :, 0, 0]
    assert order.tolist() == [0.0, *range(channels.bottleneck - 1)]


@pytest.mark.parametrize("side", [4, 5])
def test_deconvolution_is_tensorflows_same_transpose(side: int) -> None:
    """conv2d_transpose is the gradient of the SAME convolution that halves 2n to n: total padding 3, of which 1 before."""
    torch.manual_seed(0)
    layer = Deconvolution(2, 3).double()
    x = torch.randn(2, 2, side, side, dtype=torch.float64)
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()  # in, out, 5, 5
    expected = np.zeros((2, 3, 2 * side, 2 * side)) + bias[None, :, None, None]
    for b, i, o, r, c in np.ndindex(2, 2, 3, side, side):
        for kr, kc in np.ndindex(5, 5):
            row, column = 2 * r + kr - 1, 2 * c + kc - 1
            if 0 <= row < 2 * side and 0 <= column < 2 * side:
                expected[b, o, row, column] += x[b, i, r, c].item() * weight[i, o, kr, kc]
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, atol=1e-12)


def test_cross_convolution_is_tensorflows_same_convolution_of_each_clip_with_its_own_kernels() -> None:
    """An even kernel of 4: one row of zeros before, two after."""
    torch.manual_seed(0)
    x = torch.randn(3, 2, 4, 4, dtype=torch.float64)
    kernels = torch.randn(3, 5, 2, 4, 4, dtype=torch.float64)
    bias = torch.randn(5, dtype=torch.float64)
    expected = np.zeros((3, 5, 4, 4)) + bias.numpy()[None, :, None, None]
    for b, o, i, r, c, kr, kc in np.ndindex(3, 5, 2, 4, 4, 4, 4):
        row, column = r + kr - 1, c + kc - 1
        if 0 <= row < 4 and 0 <= column < 4:
            expected[b, o, r, c] += (x[b, i, row, column] * kernels[b, o, i, kr, kc]).item()
    np.testing.assert_allclose(cross_convolve(x, kernels, bias).numpy(), expected, atol=1e-12)


def test_the_kernel_bank_is_the_map_read_as_in_times_out() -> None:
    """TensorFlow reshapes (4, 4, 48*48) to (4, 4, 48 in, 48 out): channel in * 48 + out, and the map's place is the kernel's."""
    decoder = KernelDecoder(motion=8, cross=4).eval()
    motion = torch.randn(2, 8, 4, 4)
    flat = decoder.conv3(decoder.conv2(decoder.conv1(motion)))
    bank = decoder(motion)
    assert bank.shape == (2, 4, 4, 4, 4)
    for out, inside in np.ndindex(4, 4):
        assert torch.equal(bank[:, out, inside], flat[:, inside * 4 + out])
    assert (flat < 0).any(), "the last layer is linear"


def test_a_factorised_bank_by_hand_and_its_rank() -> None:
    """The maps are two factors, in-side first; every place's matrix is their product by numpy, and has the rank that was asked for."""
    torch.manual_seed(0)
    decoder = KernelDecoder(motion=8, cross=12, rank=3).eval()
    motion = torch.randn(2, 8, 4, 4)
    flat = decoder.conv3(decoder.conv2(decoder.conv1(motion))).detach().numpy()
    bank = decoder(motion).detach().numpy()
    assert bank.shape == (2, 12, 12, 4, 4)
    for b, row, column in np.ndindex(2, 4, 4):
        left, right = flat[b, :36, row, column].reshape(3, 12), flat[b, 36:, row, column].reshape(3, 12)
        np.testing.assert_allclose(bank[b, :, :, row, column], right.T @ left / np.sqrt(3), atol=1e-5)
        assert np.linalg.matrix_rank(bank[b, :, :, row, column], tol=1e-4) == 3


def test_the_factorised_decoder_of_the_full_size_has_a_few_million_parameters() -> None:
    with torch.device("meta"):
        network = FBMNetwork(FBMConfig(kernel_decoder="factorised"))
        out = network(torch.empty(2, 3, 16, 128, 128))
    # 3x3, hidden 48 * 8 = 384: 172->384 594,816; 384->384 1,327,488; 384->768 2,654,976... and BatchNorm after the first two.
    assert count(network.kernel_decoder) == 594_816 + 1_327_488 + 2_654_976 + 2 * 2 * 384 == 4_578_816
    assert count(network) == 176_806_916 - 99_134_208 + 4_578_816 == 82_251_524
    assert out.last_foreground.shape == (2, 3, 128, 128)


def test_a_kernel_of_one_at_the_centre_moves_nothing() -> None:
    """SAME with one row before: the kernel's place (1, 1) lies on the pixel itself; (1, 2) brings the right neighbour."""
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    kernel = torch.zeros(1, 1, 1, 4, 4)
    kernel[..., 1, 1] = 1
    assert torch.equal(cross_convolve(x, kernel, torch.zeros(1)), x)
    left = cross_convolve(x, kernel.roll(1, -1), torch.zeros(1))
    assert torch.equal(left[..., :3], x[..., 1:])


def test_clips_do_not_mix_in_the_cross_convolution() -> None:
    module = CrossConvolution(foreground=6, cross=4).eval()
    foreground, kernels = torch.randn(3, 6, 4, 4), torch.randn(3, 4, 4, 4, 4)
    together = module(foreground, kernels)
    alone = torch.cat([module(foreground[i : i + 1], kernels[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("shape", [(1, 3, 8, 64, 64), (1, 3, 16, 128, 128), (1, 3, 16, 64, 32), (1, 1, 16, 64, 64)])
def test_a_video_of_another_shape_is_refused_in_one_line(shape: tuple[int, ...]) -> None:
    encoder = FBMConfig(width=0.05, size=64).build_encoder()
    with pytest.raises(ValueError, match=r"takes video of \(b, 3, 16, 64, 64\), got .*data\.clip\.size=64") as raised:
        encoder(torch.zeros(shape))
    assert "\n" not in str(raised.value)


def test_features_are_flat_and_not_negative() -> None:
    features = FBMConfig(width=0.05, size=64).build_encoder()(torch.randn(2, 3, 16, 64, 64))
    assert {name: tuple(vector.shape) for name, vector in features.items()} == {
        "foreground": (2, 8 * 16),
        "background": (2, 8 * 16),
        "motion": (2, 8 * 16),
    }
    assert all((vector >= 0).all() for vector in features.values())
