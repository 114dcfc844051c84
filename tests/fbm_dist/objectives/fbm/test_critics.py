"""The scene critic and both sides' losses of its game, against numbers computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fbm_dist.objectives.fbm.adversarial import CHANCE, confuse_scenes, scene_accuracy, tell_scenes
from fbm_dist.objectives.fbm.config import FBMConfig
from fbm_dist.objectives.fbm.critics import SceneCritic, standardised


def test_the_critics_and_the_models_loss_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3)], [-math.log(3), 2.0]])
    same = torch.tensor([[True, False], [False, False]])
    other = torch.tensor([[False, True], [True, False]])  # the 2.0 does not count
    # same: p = 1/2, ln 2. other: p = 3/4, -ln(1/4); p = 1/4, -ln(3/4).
    assert tell_scenes(logits, same, other).item() == pytest.approx((CHANCE + (math.log(4) - math.log(0.75)) / 2) / 2)
    # to 1/2: ln 2; and for 3/4 as for 1/4 -(ln(3/4) + ln(1/4)) / 2.
    undecided = -(math.log(0.75) + math.log(0.25)) / 2
    assert confuse_scenes(logits, same, other).item() == pytest.approx((CHANCE + undecided) / 2)
    assert scene_accuracy(logits, same, other).item() == pytest.approx((0 + 0.5) / 2)
    zero = torch.zeros(2, 2)
    assert confuse_scenes(zero, same, other).item() == pytest.approx(CHANCE)
    nothing = torch.zeros_like(same)
    assert tell_scenes(logits, nothing, nothing).item() == confuse_scenes(logits, nothing, nothing).item() == 0


def test_features_are_standardised_in_numpy() -> None:
    maps = torch.rand(5, 3, 4, 4) * torch.tensor([0.01, 1.0, 100.0])[:, None, None] + torch.rand(3, 4, 4)
    found = standardised(maps).numpy()
    values = maps.numpy()
    centred = values - values.mean(axis=0)
    np.testing.assert_allclose(
        found, centred / np.sqrt((centred**2).mean(axis=(0, 2, 3)) + 1e-4)[:, None, None], rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("pool", [False, True])
def test_the_scene_critic_judges_each_pair_by_itself_and_learns(pool: bool) -> None:
    """Eight scenes that the maps carry plainly: it tells most of them, from batches of four."""
    torch.manual_seed(0)
    critic = SceneCritic(3, 5, hidden=32, layers=2, pool=pool)
    left, right = torch.rand(4, 3, 4, 4), torch.rand(6, 5, 4, 4)
    logits = critic(left, right)
    assert logits.shape == (4, 6)
    one = critic.left(critic._prepared(left))[2] + critic.right(critic._prepared(right))[5]
    torch.testing.assert_close(critic.deeper(one)[0], logits[2, 5])
    looks = torch.randn(8, 3, 1, 1), torch.randn(8, 5, 1, 1)
    optimizer = torch.optim.Adam(critic.parameters(), lr=1e-2)
    accuracy = []
    for _ in range(200):
        scene = torch.randperm(8)[:4]
        sides = [look[scene] + 0.1 * torch.randn(4, look.shape[1], 4, 4) for look in looks]
        same = torch.eye(4, dtype=torch.bool)
        logits = critic(*sides)
        optimizer.zero_grad()
        tell_scenes(logits, same, ~same).backward()
        optimizer.step()
        accuracy.append(scene_accuracy(logits, same, ~same).item())
    assert np.mean(accuracy[-30:]) > 0.8


def test_the_critics_weights_decay_once() -> None:
    settings = {"width": 0.05, "size": 64, "scene_critic": {"weight": 1.0}, "frame_critic": {"weight": 1.0}}
    objective = FBMConfig.model_validate(settings).build()
    factor = {name: objective.weight_decay(name, p) for name, p in objective.named_parameters()}
    assert {v for name, v in factor.items() if name.startswith("critic.") and name.endswith("weight")} == {1.0}
    assert {v for name, v in factor.items() if name.startswith("critic.") and name.endswith("bias")} == {0.0}
    assert factor["model.encoder.mapping.convolution.weight"] == 2.0
