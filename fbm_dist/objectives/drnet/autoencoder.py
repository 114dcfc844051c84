"""The single encoder that DrNet is held against (Denton and Birodkar, 2017, section 4.3): one code of a frame holds content and pose."""

from __future__ import annotations

from jaxtyping import Float, UInt8
from torch import Tensor, nn

from fbm_dist.clip import Clip
from fbm_dist.layers.pictures import grid, looking, titled, to_uint8
from fbm_dist.objectives.drnet.config import DrNetAutoencoderConfig
from fbm_dist.objectives.drnet.frames import as_frames, frame_encoder, signed_range, unit_range
from fbm_dist.objectives.drnet.losses import reconstruction
from fbm_dist.objectives.drnet.network import Still, check_video, frame_decoder
from fbm_dist.objectives.drnet.objective import check_tuple
from fbm_dist.objectives.objective import Encoder, Loss, Objective

PICTURES = 8  # clips that are shown


class CodeEncoder(Encoder):
    """The code of each frame of a clip, by DrNet's content encoder with content_dim + pose_dim numbers."""

    def __init__(self, config: DrNetAutoencoderConfig) -> None:
        super().__init__()
        self.frames, self.size = config.frames, config.size
        dim = config.content_dim + config.pose_dim
        self.code = frame_encoder(config.content, config.size, config.width, dim, config.content_code)

    def still(self, frame: Float[Tensor, "b 3 h w"]) -> Still:
        """Nothing: all that this code knows of a frame is in `moving`."""
        return Still(frame.new_zeros(frame.shape[0], 0), ())

    def moving(self, frame: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """The code of a frame in [-1, 1]."""
        code, _ = self.code(unit_range(frame))
        return code

    def forward(self, video: Float[Tensor, "b c t h w"]) -> dict[str, Float[Tensor, "b _"]]:
        """Video (b, 3, frames, size, size) in [-1, 1] -> {"code": b frames*(content_dim + pose_dim)}, in the order of time.

        Raises:
            ValueError: the video has another shape.
        """
        check_video(video, self.frames, self.size)
        return {"code": self.moving(as_frames(video)).unflatten(0, video.shape[:3:2]).flatten(1)}


class CodeNetwork(nn.Module):
    """Everything that is trained: the encoder that is kept, and DrNet's decoder without skips.

    Skips of the very frame that is to be made would carry it past the code.
    """

    def __init__(self, config: DrNetAutoencoderConfig) -> None:
        super().__init__()
        self.encoder = CodeEncoder(config)
        self.decoder = frame_decoder(config, config.content_dim + config.pose_dim, skips=False)

    def decode(self, still: Still, moving: Float[Tensor, "b d"]) -> Float[Tensor, "b 3 h w"]:
        """The frame of this code, in (0, 1); `still` is empty."""
        return self.decoder(moving, still.maps)


class DrNetAutoencoder(Objective):
    """One player. The encoder is `model.encoder`; the decoder is dropped after pretraining."""

    players = ("model",)

    def __init__(self, config: DrNetAutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.model = CodeNetwork(config)

    def forward(self, player: str, clip: Clip) -> Loss:
        """Mean squared error of every frame of `clip` in [0, 1], each made of its own code. One term, reconstruction: the loss.

        Raises:
            ValueError: the clip has another shape than DrNet's, or in training there is one clip alone.
        """
        assert player == "model", f"this autoencoder has one player, 'model', not {player!r}"
        check_tuple(clip, self.config.size, self.training)
        frames = as_frames(clip.video)
        encoder = self.model.encoder
        total = reconstruction(self.model.decode(encoder.still(frames), encoder.moving(frames)), unit_range(frames))
        return Loss(total, {"reconstruction": total.detach()})

    def features(self, clip: Clip) -> dict[str, Float[Tensor, "b _"]]:
        """The code of each clip's frames, in the mode (train or eval) that the module is in."""
        return self.model.encoder(clip.video)

    def visualize(self, clip: Clip) -> dict[str, UInt8[Tensor, "n h w 3"]]:
        """{"reconstruction": for each of the first 8 clips, its frames above what is made of their codes}; made in eval mode."""
        frames = [*clip.video[:PICTURES].unbind(2)]
        encoder = self.model.encoder
        with looking(self):
            made = [signed_range(self.model.decode(encoder.still(f), encoder.moving(f))) for f in frames]
        picture = grid([[to_uint8(frame) for frame in row] for row in (frames, made)])
        return {"reconstruction": titled(picture, [f"frame {t + 1}" for t in range(len(frames))])}

    def encoder(self) -> CodeEncoder:
        """Shares its parameters with the objective."""
        return self.model.encoder
