"""The FBM network: encoder, image decoders and cross convolution in one (Lin et al., 2017, section 3, Figure 1)."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float, Int64
from torch import Tensor, nn

from fbm_dist.objectives.fbm.config import FBMConfig
from fbm_dist.objectives.fbm.decoders import ImageDecoder
from fbm_dist.objectives.fbm.encoder import Bottleneck, Channels, FBMEncoder
from fbm_dist.objectives.fbm.kernels import CrossConvolution, KernelDecoder


class Reconstruction(NamedTuple):
    """What the decoders make of one clip; images in [-1, 1]."""

    first_foreground: Float[Tensor, "b 3 h w"]
    first_background: Float[Tensor, "b 3 h w"]
    last_foreground: Float[Tensor, "b 3 h w"]  # of the frame that was asked for; nothing asked: the last
    last_features: Float[Tensor, "b f 4 4"]  # G(f_T) of eq. 1, as moved by the motion features
    bottleneck: Bottleneck


class FBMNetwork(nn.Module):
    """Everything that is trained: the encoder that is kept, and the decoders that are dropped."""

    def __init__(self, config: FBMConfig) -> None:
        super().__init__()
        channels = Channels.of(config.width)
        self.encoder = FBMEncoder(config)
        self.foreground_decoder = ImageDecoder(channels.foreground, channels.image, config.size)
        self.background_decoder = ImageDecoder(channels.background, channels.image, config.size)
        rank = config.kernel_rank if config.kernel_decoder == "factorised" else None
        self.kernel_decoder = KernelDecoder(channels.motion, channels.cross, rank, config.random_frame, config.frames)
        self.cross_convolution = CrossConvolution(channels.foreground, channels.cross)

    def forward(self, video: Float[Tensor, "b c t h w"], frame: Int64[Tensor, " b"] | None = None) -> Reconstruction:
        """Reconstruct the first and the last frame of `video` (b, 3, 16, size, size) in [-1, 1].

        Args:
            frame: in place of the last, this one of each clip; the network must have been built with `random_frame`.
        """
        bottleneck = self.encoder.maps(video)
        # Section 3: what the last frame asks for must not be stored in the first frame's foreground, so no gradient passes here.
        last = self.cross_convolution(bottleneck.foreground.detach(), self.kernel_decoder(bottleneck.motion, frame))
        return Reconstruction(
            first_foreground=self.foreground_decoder(bottleneck.foreground),
            first_background=self.background_decoder(bottleneck.background),
            last_foreground=self.foreground_decoder(last),
            last_features=last,
            bottleneck=bottleneck,
        )
