"""The union of model families: a new room adds its config here, and nowhere else."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fbm_dist.objectives.coherency.config import CoherencyConfig
from fbm_dist.objectives.drnet.config import DrNetAutoencoderConfig, DrNetConfig, DrNetPredictionConfig
from fbm_dist.objectives.fbm.config import AutoencoderConfig, FBMConfig
from fbm_dist.objectives.motion_mask.config import MotionMaskConfig

# Families that pretrain an encoder; the key `family` says which.
Pretraining = Annotated[
    FBMConfig
    | AutoencoderConfig
    | MotionMaskConfig
    | CoherencyConfig
    | DrNetConfig
    | DrNetAutoencoderConfig
    | DrNetPredictionConfig,
    Field(discriminator="family"),
]

DEFAULT: Pretraining = FBMConfig()  # where a config says nothing
