"""The configs of FBM and of the autoencoder that it is held against; imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from data_tools.config import Config
from fbm_dist.objectives.family import Family

if TYPE_CHECKING:
    from fbm_dist.objectives.fbm.autoencoder import Autoencoder
    from fbm_dist.objectives.fbm.network import FBMEncoder
    from fbm_dist.objectives.fbm.objective import FBM


class Coherency(Config):
    """The background coherency term: per-tuple hinge on background features, [d(t, t+1) - d(t, other film) + margin]_+."""

    weight: float = Field(0.0, ge=0)  # 0: off
    margin: float = Field(0.5, ge=0)


class Trimap(Config):
    """Soft scores as foreground, background and don't care (Pathak et al., Learning Features by Watching Objects Move, 5.2)."""

    low: float = Field(0.4, ge=0, le=1)  # a score below it is background ...
    high: float = Field(0.7, ge=0, le=1)  # ... above this one foreground, and between them neither

    @model_validator(mode="after")
    def _ordered(self) -> Trimap:
        if self.low > self.high:
            raise ValueError(f"trimap.low={self.low} is above trimap.high={self.high}; give the smaller one as low")
        return self


class EncoderConfig(Family):
    """What decides the encoder, which both families of this room train."""

    frames: int = Field(16, description="T: frames of a clip; the encoder halves time three times and needs 16")
    size: Literal[64, 128] = 128  # side of the square input in pixels; the bottleneck is 4x4 at either size
    width: float = Field(1.0, gt=0, le=4)  # factor on every channel count, of the decoders, too; 1 is the paper's

    @model_validator(mode="after")
    def _sixteen_frames(self) -> EncoderConfig:
        if self.frames != 16:
            raise ValueError(f"objective.frames is {self.frames}; the FBM encoder takes clips of 16 frames")
        return self

    def build_encoder(self) -> FBMEncoder:
        """C3D and mapping, with freshly initialised weights."""
        from fbm_dist.objectives.fbm.network import FBMEncoder

        return FBMEncoder(self)


class FBMConfig(EncoderConfig):
    """Disentangling Motion, Foreground and Background Features in Videos (Lin et al., 2017); 176.8M parameters at width 1."""

    family: Literal["fbm"] = "fbm"
    needs_masks: ClassVar[bool] = True
    mask_threshold: float = Field(0.5, gt=0, lt=1)  # b_fg of eq. 2: 1 where the soft score is above it
    trimap: Trimap | None = None  # in place of mask_threshold: uncertain pixels weigh nothing in any reconstruction
    feature_weight: float = Field(1.0, ge=0)  # weight of L_feat (eq. 7)
    double_decay: bool = (
        True  # what the graph uses twice (encoder, foreground decoder) decays twice, as in the original
    )
    coherency: Coherency = Coherency()
    kernel_decoder: Literal["full", "factorised"] = (
        "full"  # full: the paper's, 99.1M parameters; factorised: 4.6M at rank 8
    )
    # the first foreground is moved to any later frame t in place of the last: the kernel decoder is given t as a map (condition),
    # or scales and shifts its hidden channels by what it has learnt for each t (kernels); None: the last frame, as in the paper
    random_frame: Literal["condition", "kernels"] | None = None
    kernel_rank: int = Field(
        8, ge=1
    )  # factorised: of each place's matrix from in to out channels; 48 channels at width 1

    def build(self) -> FBM:
        """The objective with freshly initialised weights."""
        from fbm_dist.objectives.fbm.objective import FBM

        return FBM(self)


class AutoencoderConfig(EncoderConfig):
    """The paper's baseline (Lin et al., 2017, section 5): the same encoder, a mirrored decoder, L1 on the whole clip; no masks."""

    family: Literal["autoencoder"] = "autoencoder"

    def build(self) -> Autoencoder:
        """The objective with freshly initialised weights."""
        from fbm_dist.objectives.fbm.autoencoder import Autoencoder

        return Autoencoder(self)
