"""The configs of DrNet, of the single encoder that it is held against, and of the LSTM that predicts on top of either; no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from fbm_dist.objectives.family import Family

if TYPE_CHECKING:
    from fbm_dist.objectives.drnet.autoencoder import CodeEncoder, DrNetAutoencoder
    from fbm_dist.objectives.drnet.network import DrNetEncoder
    from fbm_dist.objectives.drnet.objective import DrNet
    from fbm_dist.objectives.drnet.prediction import DrNetPrediction, PredictionEncoder
    from fbm_dist.schema import ClipSpec

TUPLE = 4  # frames of a training clip: two for the content, two for the pose
Code = Literal[
    "unit", "tanh"
]  # unit: tanh, then scaled to length 1 (the paper); tanh alone: the default of the authors' code


class Networks(Family):
    """What DrNet and the single encoder share: architecture and size of a frame's code."""

    frames: int = Field(4, ge=1)  # that the encoder takes, spread over the clip
    size: Literal[64, 128] = 64
    width: float = Field(1.0, gt=0, le=4)  # factor on every channel count; 1 is the paper's
    # of the content encoder; the decoder mirrors a vgg, and is a DCGAN's otherwise (MNIST dcgan, NORB and SUNCG resnet, KTH vgg)
    content: Literal["dcgan", "vgg", "resnet"] = "dcgan"
    content_dim: int = Field(128, ge=1)  # paper 128; code 64 (Lua), 128 (Python)
    pose_dim: int = Field(5, ge=1)  # paper 5 (MNIST, KTH), 10 (NORB, SUNCG); code 5, 16 with skips (Lua), 10 (Python)
    content_code: Code = "unit"

    def check_clip(self, clip: ClipSpec) -> None:
        """The loss takes 4 frames of each clip at random, whatever the encoder is shown later.

        Raises:
            ValueError: naming the key that disagrees.
        """
        if clip.length != TUPLE or clip.negative or clip.within is None:
            found = f"frames={clip.frames} within={clip.within} offsets={list(clip.offsets)} negative={clip.negative}"
            raise ValueError(
                f"data.clip has {found}, but {self.family} learns from {TUPLE} random frames of each clip; set "
                f"data.clip.frames={TUPLE} and data.clip.within=20 (how far apart they may be), and nothing else"
            )
        self.check_size(clip)


class DrNetConfig(Networks):
    """Unsupervised Learning of Disentangled Representations from Video (Denton and Birodkar, 2017)."""

    family: Literal["drnet"] = "drnet"
    pose: Literal["dcgan", "resnet"] = "dcgan"  # KTH, NORB, SUNCG: resnet
    pose_code: Code = "unit"
    skips: bool = False  # U-Net: the content encoder's maps go to the decoder, too (KTH)
    alpha: float = Field(1.0, ge=0)  # of the similarity (eq. 5); paper and code 1
    # of the adversarial term (eq. 5); paper 0.1, KTH 1e-4; code 0, i.e. off (Lua), 1e-4 (Python)
    beta: float = Field(0.1, ge=0)

    @model_validator(mode="after")
    def _mirrored(self) -> DrNetConfig:
        if self.skips and self.content == "resnet":
            raise ValueError("skips need a decoder that mirrors the content encoder: content=dcgan or vgg, not resnet")
        return self

    def build(self) -> DrNet:
        """The objective with freshly initialised weights."""
        from fbm_dist.objectives.drnet.objective import DrNet

        return DrNet(self)

    def build_encoder(self) -> DrNetEncoder:
        """Content and pose encoder with freshly initialised weights."""
        from fbm_dist.objectives.drnet.network import DrNetEncoder

        return DrNetEncoder(self)


class DrNetAutoencoderConfig(Networks):
    """The paper's baseline (section 4.3): one encoder whose code of content_dim + pose_dim numbers holds both; no skips, no critic."""

    family: Literal["drnet_autoencoder"] = "drnet_autoencoder"

    def build(self) -> DrNetAutoencoder:
        """The objective with freshly initialised weights."""
        from fbm_dist.objectives.drnet.autoencoder import DrNetAutoencoder

        return DrNetAutoencoder(self)

    def build_encoder(self) -> CodeEncoder:
        """The encoder with freshly initialised weights."""
        from fbm_dist.objectives.drnet.autoencoder import CodeEncoder

        return CodeEncoder(self)


class DrNetPredictionConfig(Family):
    """An LSTM that predicts the next pose, over a frozen DrNet (section 3.1), or over the single encoder: the paper's AE-LSTM.

    The frozen weights come by the run's `init_from`.
    """

    family: Literal["drnet_prediction"] = "drnet_prediction"
    frames: int = Field(15, ge=2)  # seen and to be predicted; paper 5 + 10 on MNIST, 10 + 10 on KTH
    size: Literal[64, 128] = 64  # the trunk's
    trunk: Annotated[DrNetConfig | DrNetAutoencoderConfig, Field(discriminator="family")] = DrNetConfig()
    n_past: int = Field(5, ge=1)  # frames seen; the content is that of the last of them
    hidden: int = Field(256, ge=1)  # cells of a layer
    layers: int = Field(2, ge=1)

    @model_validator(mode="after")
    def _fits(self) -> DrNetPredictionConfig:
        if self.size != self.trunk.size:
            raise ValueError(f"size is {self.size}, but the trunk's is {self.trunk.size}; make them equal")
        if self.n_past >= self.frames:
            raise ValueError(
                f"n_past={self.n_past} of frames={self.frames} leaves nothing to predict; give a smaller one"
            )
        return self

    def check_clip(self, clip: ClipSpec) -> None:
        """Evenly spaced frames, in order: as many as the encoder takes.

        Raises:
            ValueError: naming the key that disagrees.
        """
        if clip.offsets or clip.within is not None or clip.negative:
            raise ValueError(
                "drnet_prediction learns from frames in their order: leave data.clip.offsets, within and negative out"
            )
        self.check_encoded(clip)

    def build(self) -> DrNetPrediction:
        """The objective with freshly initialised weights, those of the trunk included."""
        from fbm_dist.objectives.drnet.prediction import DrNetPrediction

        return DrNetPrediction(self)

    def build_encoder(self) -> PredictionEncoder:
        """Trunk and LSTM with freshly initialised weights."""
        from fbm_dist.objectives.drnet.prediction import PredictionEncoder

        return PredictionEncoder(self)
