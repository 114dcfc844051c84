"""The union of model families: a new room adds its config here, and nowhere else."""

from __future__ import annotations

from fbm_dist.objectives.fbm.config import FBMConfig

# Families that pretrain an encoder. A second one makes this `Annotated[FBMConfig | Other, Field(discriminator="family")]`.
Pretraining = FBMConfig
