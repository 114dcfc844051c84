"""Which parameters belong to a normalisation layer: they are not decayed."""

from __future__ import annotations

from torch import nn

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


def norm_parameters(module: nn.Module) -> frozenset[str]:
    """The names, relative to `module`, of the scales and offsets of its normalisation layers."""
    return frozenset(
        f"{path}.{name}" if path else name
        for path, layer in module.named_modules()
        if isinstance(layer, NORMS)
        for name, _ in layer.named_parameters(recurse=False)
    )
