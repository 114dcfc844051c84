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


class SceneCritic(Config):
    """A critic that reads the scene from motion features, and a model that keeps it from them, as in DrNet (Denton and Birodkar, 2017).

    It is told pairs of features and learns which are of one scene; the model makes it undecided. Pairs are made within a micro-batch.
    """

    weight: float = Field(0.0, ge=0)  # of the model's side; 0: no critic
    # motion features of a clip beside: background: its background features; reversed: the motion features of the reversed clip
    # (DrNet's own pairs); transplanted: those of another film's foreground, set in this clip's scene by the masks
    pairs: Literal["background", "reversed", "transplanted"] = "transplanted"
    pool: bool = False  # the mean of each channel in place of the 4x4 map
    hidden: int = Field(256, ge=1)  # units of a layer
    layers: int = Field(3, ge=1)  # hidden ones


class FrameCritic(Config):
    """A critic that tells real masked frames from reconstructions, for sharper ones (the paper's future work)."""

    weight: float = Field(0.0, ge=0)  # of the model's side; 0: no critic
    loss: Literal["hinge", "bce"] = "hinge"
    conditional: bool = True  # it is shown the frame at the clip's other end, too


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
    scene_critic: SceneCritic = SceneCritic()
    # weight of what another scene behind the same foreground changes in the motion features (one more pass of the encoder); 0: off
    scene_share: float = Field(0.0, ge=0)
    # weight of what another film's thing, gone the same way, changes in them (likewise); what turns or bends is not copied; 0: off
    object_share: float = Field(0.0, ge=0)
    frame_critic: FrameCritic = FrameCritic()
    kernel_decoder: Literal["full", "factorised"] = (
        "full"  # full: the paper's, 99.1M parameters; factorised: 4.6M at rank 8
    )
    # the first foreground is moved to any later frame t in place of the last: the kernel decoder is given t as a map (condition),
    # or scales and shifts its hidden channels by what it has learnt for each t (kernels); None: the last frame, as in the paper
    random_frame: Literal["condition", "kernels"] | None = None
    kernel_rank: int = Field(
        8, ge=1
    )  # factorised: of each place's matrix from in to out channels; 48 channels at width 1

    @property
    def has_critic(self) -> bool:
        """Whether a second player takes part."""
        return self.scene_critic.weight > 0 or self.frame_critic.weight > 0

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
