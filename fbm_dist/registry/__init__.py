"""Encoders by name: saved as safetensors + config, registered, promoted and fetched in MLflow. No pickle anywhere."""

from fbm_dist.registry.folder import Description, fresh_encoder, save_encoder
from fbm_dist.registry.versions import (
    CHAMPION,
    Registered,
    describe,
    fetched,
    load_clip_spec,
    load_encoder,
    promote,
    register,
    resolve,
    tag,
)

__all__ = [
    "CHAMPION",
    "Description",
    "Registered",
    "describe",
    "fetched",
    "fresh_encoder",
    "load_clip_spec",
    "load_encoder",
    "promote",
    "register",
    "resolve",
    "save_encoder",
    "tag",
]
