"""Features -> image: the decoder of the first and last foreground, and of the first background (Lin et al., 2017, section 3)."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from fbm_dist.layers.initialization import xavier_
from fbm_dist.objectives.fbm.encoder import block2d, norm_relu


class Deconvolution(nn.ConvTranspose2d):
    """TensorFlow's conv2d_transpose with kernel 5, stride 2, padding SAME: doubles the side, output[2i + k - 1] += input[i] * weight[k].

    PyTorch's padding=2, output_padding=1 has the right size and is shifted by one pixel.
    """

    def __init__(self, channels: int, out: int) -> None:
        super().__init__(channels, out, kernel_size=5, stride=2, padding=1)

    def forward(  # type: ignore[override]
        self, x: Float[Tensor, "b c h w"]
    ) -> Float[Tensor, "b o h2 w2"]:
        """(b, c, h, w) -> (b, o, 2h, 2w)."""
        return super().forward(x)[..., :-1, :-1]


class ImageDecoder(nn.Sequential):
    """Features (b, f, 4, 4) -> image (b, 3, size, size) in (-1, 1): a 1x1 convolution, then deconvolutions, tanh."""

    def __init__(self, features: int, channels: tuple[int, ...], size: int) -> None:
        # At 64 pixels one deconvolution fewer: the second 512 -> 512.
        hidden = channels if size == 128 else channels[:2] + channels[3:]
        layers: OrderedDict[str, nn.Module] = OrderedDict(expand=block2d(features, hidden[0], 1))
        for i, (before, after) in enumerate(pairwise(hidden), start=1):
            block = OrderedDict(convolution=Deconvolution(before, after)) | norm_relu(nn.BatchNorm2d(after))
            layers[f"deconv{i}"] = nn.Sequential(block)
        layers["image"] = Deconvolution(hidden[-1], 3)
        layers["tanh"] = nn.Tanh()
        super().__init__(layers)
        xavier_(self)
