"""The autoencoder that FBM is held against (Lin et al., 2017, section 5, Table 1): the same encoder, a mirrored decoder, L1 on the clip."""

from __future__ import annotations

from collections import OrderedDict

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from fbm_dist.clip import Clip
from fbm_dist.layers.initialization import xavier_
from fbm_dist.layers.norms import norm_parameters
from fbm_dist.layers.pictures import grid, looking, titled, to_uint8
from fbm_dist.objectives.fbm.config import AutoencoderConfig
from fbm_dist.objectives.fbm.encoder import Channels, FBMEncoder, block3d, fourth_pooling, norm_relu
from fbm_dist.objectives.objective import Loss, Objective

PICTURES = 8  # clips that are shown
COLUMNS = 4  # frames of each, spread over its length

Stride = tuple[int, int, int]  # in time, rows, columns: 1 or 2


class Unpooling(nn.ConvTranspose3d):
    """The convolution in a pooling's place: TensorFlow's conv3d_transpose with kernel 3 and padding SAME, times `stride` in size.

    With stride 2 TensorFlow cuts the odd one off the end: output[2i + k] += input[i] * weight[k]. PyTorch's padding=1, output_padding=1
    has the right size and is shifted by one. One zero before the input brings it into line; cutting a larger output is slower.
    """

    def __init__(self, channels: int, stride: Stride) -> None:
        time, rows, columns = (step - 1 for step in stride)
        grown = (time, rows, columns)
        super().__init__(channels, channels, kernel_size=3, stride=stride, padding=stride, output_padding=grown)
        self.zeros = [columns, 0, rows, 0, time, 0]

    def forward(  # type: ignore[override]
        self, x: Float[Tensor, "b c t h w"]
    ) -> Float[Tensor, "b c t2 h2 w2"]:
        """(b, c, t, h, w) -> (b, c, t * stride[0], h * stride[1], w * stride[2])."""
        return super().forward(F.pad(x, self.zeros))


class VideoDecoder(nn.Sequential):
    """The encoder's map (b, 512, 4, 4) -> video (b, 3, 16, size, size) in (-1, 1): the encoder read backwards, then tanh.

    The original's layers: a transposed 2x2x2 convolution that undoes the mapping, then each 3x3x3 convolution of the encoder from last
    to first, and in the place of each pooling a transposed convolution with its stride. It builds the 3x3x3 ones of stride 1 as transposed,
    too; those are convolutions with the kernel turned over, hence the same functions from the same distribution of weights.
    """

    def __init__(self, width: float, size: int) -> None:
        channels = Channels.of(width)
        one, two, three, four = channels.c3d
        mapping = nn.ConvTranspose3d(channels.bottleneck, four, kernel_size=2, stride=2)
        super().__init__(
            OrderedDict(
                mapping=nn.Sequential(OrderedDict(convolution=mapping) | norm_relu(nn.BatchNorm3d(four))),
                conv5b=block3d(four, four),
                conv5a=block3d(four, four),
                unpool4=_unpool(four, fourth_pooling(size)),
                conv4b=block3d(four, four),
                conv4a=block3d(four, three),
                unpool3=_unpool(three, (2, 2, 2)),
                conv3b=block3d(three, three),
                conv3a=block3d(three, two),
                unpool2=_unpool(two, (2, 2, 2)),
                conv2=block3d(two, one),
                unpool1=_unpool(one, (1, 2, 2)),
                conv1=nn.Conv3d(one, 3, kernel_size=3, padding=1),
                tanh=nn.Tanh(),
            )
        )
        xavier_(self)

    def forward(  # type: ignore[override]
        self, features: Float[Tensor, "b f 4 4"]
    ) -> Float[Tensor, "b 3 t h w"]:
        """The video that was made from features of one map per clip."""
        return super().forward(features.unsqueeze(2).contiguous(memory_format=torch.channels_last_3d))


def _unpool(channels: int, stride: Stride) -> nn.Sequential:
    return nn.Sequential(OrderedDict(convolution=Unpooling(channels, stride)) | norm_relu(nn.BatchNorm3d(channels)))


class AutoencoderNetwork(nn.Module):
    """Everything that is trained: the encoder that is kept, and the decoder that is dropped."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.encoder = FBMEncoder(config)
        self.decoder = VideoDecoder(config.width, config.size)

    def forward(self, video: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b 3 t h w"]:
        """`video` (b, 3, 16, size, size) in [-1, 1], reconstructed from the whole bottleneck."""
        maps = self.encoder.maps(video)
        return self.decoder(torch.cat([maps.background, maps.foreground, maps.motion], dim=1))


class Autoencoder(Objective):
    """One player. The encoder is `model.encoder`; what else is under `model` is dropped after pretraining."""

    players = ("model",)

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.model = AutoencoderNetwork(config)
        self._norms = norm_parameters(self.model)

    def forward(self, player: str, clip: Clip) -> Loss:
        """L1 distance between the clip and its reconstruction in float32, mean over clips, channels, frames and pixels.

        Masks are not looked at. The one term, rec_clip, is the loss itself.

        Raises:
            ValueError: the clip has another shape than the config says.
        """
        assert player == "model", f"an autoencoder has one player, 'model', not {player!r}"
        total = F.l1_loss(self.model(clip.video).float(), clip.video.float())
        return Loss(total, {"rec_clip": total.detach()})

    def features(self, clip: Clip) -> dict[str, Float[Tensor, "b _"]]:
        """The bottleneck under the encoder's names, in the mode (train or eval) that the module is in.

        foreground, background and motion are the same thirds of the channels as FBM's; nothing taught them what they are called.
        """
        return self.model.encoder(clip.video)

    def visualize(self, clip: Clip) -> dict[str, UInt8[Tensor, "n h w 3"]]:
        """{"reconstruction": one picture for each of the first 8 clips}: four frames from first to last, as they are above what the
        network makes of them; made in eval mode."""
        video = clip.video[:PICTURES]
        with looking(self):
            made = self.model(video)
        last = video.shape[2] - 1
        chosen = [round(i * last / (COLUMNS - 1)) for i in range(COLUMNS)]
        picture = grid([[to_uint8(frames[:, :, t]) for t in chosen] for frames in (video, made)])
        return {"reconstruction": titled(picture, [f"frame {t + 1}" for t in chosen])}

    def encoder(self) -> FBMEncoder:
        """C3D and mapping; shares its parameters with the objective."""
        return self.model.encoder

    def weight_decay(self, name: str, parameter: nn.Parameter) -> float:
        """1 for weights and biases of convolutions, 0 for BatchNorm. Unlike FBM's, this graph uses each variable once."""
        return 0.0 if name.removeprefix("model.") in self._norms else 1.0
