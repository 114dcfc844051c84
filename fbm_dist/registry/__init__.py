"""Encoders by name: saved as safetensors + config, registered, promoted and fetched in MLflow. No pickle anywhere."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fbm_dist.registry.exports.write import export_encoder
    from fbm_dist.registry.folder import Description, fresh_encoder, save_encoder
    from fbm_dist.registry.promotion import promote_by
    from fbm_dist.registry.pulled.pull import pull
    from fbm_dist.registry.pulled.verify import verify
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

# Where each lies. They are imported when they are asked for: the command's --help shall not wait for torch.
PLACES = {
    "exports.write": ("export_encoder",),
    "folder": ("Description", "fresh_encoder", "save_encoder"),
    "promotion": ("promote_by",),
    "pulled.pull": ("pull",),
    "pulled.verify": ("verify",),
    "versions": (
        *("CHAMPION", "Registered", "describe", "fetched", "load_clip_spec", "load_encoder", "promote", "register"),
        *("resolve", "tag"),
    ),
}

__all__ = [
    "CHAMPION",
    "Description",
    "Registered",
    "describe",
    "export_encoder",
    "fetched",
    "fresh_encoder",
    "load_clip_spec",
    "load_encoder",
    "promote",
    "promote_by",
    "pull",
    "register",
    "resolve",
    "save_encoder",
    "tag",
    "verify",
]


def __getattr__(name: str) -> Any:
    for module, names in PLACES.items():
        if name in names:
            return getattr(importlib.import_module(f"fbm_dist.registry.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
