"""The single encoder: its loss by hand, that it overfits, its features."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fbm_dist.objectives.drnet.autoencoder import DrNetAutoencoder
from fbm_dist.objectives.drnet.config import DrNetAutoencoderConfig
from tests.fbm_dist.objectives.learning import train


def build(seed: int = 0, **settings: Any) -> DrNetAutoencoder:
    torch.manual_seed(seed)
    return DrNetAutoencoderConfig.model_validate({"width": 0.05, "content_dim": 8, "pose_dim": 3} | settings).build()


def test_the_loss_is_the_mean_square_over_all_frames(make_clip: Any) -> None:
    objective, clip = build(), make_clip(3, frames=4)
    loss = objective("model", clip)
    with torch.no_grad():
        frames = torch.cat([clip.video[i].transpose(0, 1) for i in range(3)])  # clip after clip
        image = objective.model.decoder(objective.model.encoder.moving(frames), ())
    assert loss.total.item() == pytest.approx(((image - (frames + 1) / 2) ** 2).mean().item(), rel=1e-5)
    assert loss.terms["reconstruction"].item() == loss.total.item()
    loss.total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in objective.parameters())


def test_it_overfits_a_few_clips(make_clip: Any) -> None:
    objective, clip = build(width=0.125), make_clip(4, frames=4)
    curve = [step["total"] for step in train(objective, clip, steps=40, lr=5e-3)]
    assert curve[-1] < 0.2 * curve[0], curve[::10]


def test_features_are_the_codes_in_order(make_clip: Any) -> None:
    objective, clip = build().eval(), make_clip(2, frames=4)
    features = objective.features(clip)
    assert {name: tuple(value.shape) for name, value in features.items()} == {"code": (2, 44)}
    for t in range(4):
        code = objective.encoder().moving(clip.video[:, :, t])
        torch.testing.assert_close(features["code"][:, 11 * t : 11 * t + 11], code)


def test_bf16_keeps_the_loss_in_fp32(make_clip: Any) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert build()("model", make_clip(3, frames=4)).total.dtype == torch.float32


def test_other_clips_are_refused(make_clip: Any) -> None:
    with pytest.raises(ValueError, match=r"data\.clip\.within=20"):
        build()("model", make_clip(2, frames=16))
