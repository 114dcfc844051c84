"""The config of the motion-mask ConvNet; imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from fbm_dist.objectives.family import Family

if TYPE_CHECKING:
    from fbm_dist.objectives.motion_mask.network import FrameEncoder
    from fbm_dist.objectives.motion_mask.objective import MotionMask
    from fbm_dist.schema import ClipSpec

PAPER_SIZE, PAPER_MASK = 227, 56  # sides in pixels of the input and of the mask


class MotionMaskConfig(Family):
    """Learning Features by Watching Objects Move (Pathak et al., 2017, section 5.2): AlexNet and one linear layer; 69.7M parameters."""

    family: Literal["motion_mask"] = "motion_mask"
    needs_masks: ClassVar[bool] = True
    foreground: ClassVar[str] = "mask network"
    frames: int = Field(1, ge=1, le=1)  # of a training clip; the encoder averages its features over any number
    size: int = Field(PAPER_SIZE, ge=67)  # side of the square frame in pixels; below 67 nothing is left to pool
    mask_size: int | None = Field(None, ge=4)  # side of the mask; None: 56 at 227 pixels, in proportion elsewhere
    width: float = Field(1.0, gt=0, le=4)  # factor on every channel count; 1 is AlexNet's
    norm: Literal["lrn", "batch", "none"] = "lrn"  # lrn: local response normalisation after conv1 and conv2
    groups: Literal[1, 2] = 2  # of conv2, conv4 and conv5; 2 as in the original AlexNet
    fully_connected: bool = True  # False: conv5 (not pooled) and a 1x1 convolution 256 -> 128 in place of fc6 and fc7
    low_rank: int | None = Field(None, ge=1)  # a linear bottleneck of this length before the mask, e.g. 512; None: none
    dropout: float = Field(0.5, ge=0, lt=1)  # after fc6 and fc7
    negative: float = Field(0.4, gt=0, lt=1)  # trimap: background is a soft score below it
    positive: float = Field(0.7, gt=0, lt=1)  # trimap: foreground is a soft score above it; between the two: don't care
    pixels: Literal["mean", "sum"] = "mean"  # how a clip's loss is made of its pixels'
    loss_factor: float = Field(32.0, gt=0)  # 32: DeepMask's gradient, a sum over the 32 clips of its batch

    @model_validator(mode="after")
    def _trimap(self) -> MotionMaskConfig:
        if self.negative > self.positive:
            raise ValueError(
                f"negative={self.negative} is above positive={self.positive}: pixels would be both; lower it to that at least"
            )
        return self

    @property
    def mask_side(self) -> int:
        """Side of the mask in pixels: `mask_size`, or the paper's proportion to the nearest multiple of 4."""
        return self.mask_size or max(4, 4 * round(self.size * PAPER_MASK / PAPER_SIZE / 4))

    def segmented(self, clip: ClipSpec) -> ClipSpec:
        """The whole frame, squashed: a box is not known of a frame without a mask, and a centre crop would miss what is beside it."""
        whole = {"resize": "squash", "crop_share": 1.0, "crop_at": "centre"}
        return self.pictures(clip).model_copy(update=whole)

    def build(self) -> MotionMask:
        """The objective with freshly initialised weights."""
        from fbm_dist.objectives.motion_mask.objective import MotionMask

        return MotionMask(self)

    def build_encoder(self) -> FrameEncoder:
        """AlexNet up to fc7, with freshly initialised weights."""
        from fbm_dist.objectives.motion_mask.network import FrameEncoder

        return FrameEncoder(self)
