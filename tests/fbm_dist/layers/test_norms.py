"""Which parameters are norms'."""

from __future__ import annotations

from torch import nn

from fbm_dist.layers.norms import norm_parameters


def test_every_kind_of_norm_is_found_at_any_depth() -> None:
    module = nn.ModuleDict(
        {
            "convolution": nn.Conv2d(4, 4, 1),
            "deep": nn.Sequential(nn.BatchNorm3d(4), nn.Sequential(nn.GroupNorm(2, 4))),
            "layer": nn.LayerNorm(4),
            "synchronised": nn.SyncBatchNorm(4),
            "plain": nn.BatchNorm1d(4, affine=False),
        }
    )
    assert norm_parameters(module) == {
        f"{path}.{name}" for path in ("deep.0", "deep.1.0", "layer", "synchronised") for name in ("weight", "bias")
    }
    assert norm_parameters(nn.BatchNorm2d(4)) == {"weight", "bias"}
