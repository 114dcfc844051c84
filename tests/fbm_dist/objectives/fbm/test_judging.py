"""Sharper frames: the frame critics' losses by hand, spectral normalisation, what is judged, and who learns from it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from fbm_dist.objectives.fbm.adversarial import Kind, pass_for_real, tell_frames
from fbm_dist.objectives.fbm.config import FBMConfig
from fbm_dist.objectives.fbm.critics import Critics, FrameCritic, SpectralConvolution
from fbm_dist.objectives.fbm.frames import target
from fbm_dist.objectives.fbm.judging import judged
from fbm_dist.objectives.fbm.objective import FBM
from fbm_dist.training.engines.turn import check_players, turn


def build(seed: int = 0, **settings: Any) -> FBM:
    torch.manual_seed(seed)
    return FBMConfig.model_validate({"width": 0.05, "size": 64} | settings).build()


def test_the_losses_by_hand() -> None:
    """Frame 0 and 1 are judged, 2 is not. Patches are averaged, then frames."""
    real = torch.tensor([[2.0, 0.5], [-1.0, 1.0], [9.0, 9.0]]).reshape(3, 1, 1, 2)
    made = torch.tensor([[-3.0, 0.0], [1.0, -1.0], [9.0, 9.0]]).reshape(3, 1, 1, 2)
    seen = torch.tensor([True, True, False])
    # hinge: [1 - real]_+ = 0, .5 | 2, 0; [1 + made]_+ = 0, 1 | 2, 0
    assert tell_frames(real, made, seen, "hinge").item() == pytest.approx((0.25 + 0.5 + 1 + 1) / 2)
    assert pass_for_real(made, seen, "hinge").item() == pytest.approx((1.5 + 0) / 2)
    sure = torch.full((3, 1, 1, 2), math.log(3))  # probability of being real 3/4
    assert tell_frames(sure, sure, seen, "bce").item() == pytest.approx(-math.log(0.75) - math.log(0.25))
    assert pass_for_real(sure, seen, "bce").item() == pytest.approx(-math.log(0.75))
    nothing = torch.zeros(3, dtype=torch.bool)
    for kind in ("hinge", "bce"):
        assert tell_frames(real, made, nothing, kind).item() == pass_for_real(made, nothing, kind).item() == 0


def test_the_spectral_norm_is_one_by_numpy() -> None:
    torch.manual_seed(0)
    layer = SpectralConvolution(3, 6, kernel=4, stride=2, padding=1)
    x = torch.rand(1, 3, 8, 8)
    for _ in range(30):
        made = layer(x)
    largest = np.linalg.svd(layer.weight.detach().numpy().reshape(6, -1))[1][0]
    expected = torch.nn.functional.conv2d(x, layer.weight / largest, layer.bias, stride=2, padding=1)
    torch.testing.assert_close(made, expected, rtol=1e-3, atol=1e-4)
    direction = layer.direction.clone()
    layer.eval()(x)
    assert torch.equal(layer.direction, direction)
    # d(W / sigma) with sigma = u W v: no growth along W itself
    layer.train()(x).square().sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.abs().max() > 0


def test_scaling_its_weights_changes_no_critic() -> None:
    """What makes a Lipschitz bound: it cannot shout."""
    torch.manual_seed(0)
    critic = FrameCritic(8, 64, conditional=False).eval()
    image = torch.rand(2, 3, 64, 64)
    before = critic(image, image)
    with torch.no_grad():
        for layer in critic.layers:
            if isinstance(layer, SpectralConvolution):
                layer.weight.mul_(10)
    torch.testing.assert_close(critic(image, image), before)


@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("conditional", [True, False])
def test_a_critic_answers_by_patch_and_is_shown_what_it_may_see(size: int, conditional: bool) -> None:
    torch.manual_seed(0)
    critic = FrameCritic(8, size, conditional).eval()
    image, condition = torch.rand(2, 3, size, size), torch.rand(2, 3, size, size)
    answers = critic(image, condition)
    assert answers.shape == (2, 1, 8, 8)
    assert torch.equal(answers, critic(image, torch.zeros_like(condition))) is not conditional
    alone = torch.cat([critic(image[i : i + 1], condition[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(answers, alone, msg="a frame is judged by itself alone")


def test_the_critics_of_the_full_size() -> None:
    with torch.device("meta"):
        critics = Critics(FBMConfig.model_validate({"frame_critic": {"weight": 1}, "scene_critic": {"weight": 1}}))
    # 4x4: 6->64 6,208; 64->128 131,200; 128->256 524,544; 256->512 2,097,664; 3x3 to 1: 4,609.
    frames = [sum(p.numel() for p in critic.parameters()) for critic in critics.frames.children()]
    assert frames == [6_208 + 131_200 + 524_544 + 2_097_664 + 4_609] * 2 == [2_764_225] * 2
    # Two sides of 172 * 16 to 256, one bias; twice 256->256; 256->1.
    scene = sum(p.numel() for p in critics.scene.parameters())
    assert scene == 2 * 172 * 16 * 256 + 256 + 2 * (256 * 256 + 256) + 257 == 1_541_121


def test_what_is_judged(make_clip: Any) -> None:
    """Both foregrounds by one critic, beside the frame at the other end; no frame without a foreground; no don't cares."""
    objective, clip = build(trimap={"low": 0.4, "high": 0.7}), make_clip(2)
    assert clip.mask is not None
    clip.mask[1, :, -1] = 0
    clip.mask[:, :, 0, 60:] = 0.5
    first, last = (target(clip, t, objective.config) for t in (0, -1))
    with torch.no_grad():
        out = objective.model(clip.video)
    found = judged(clip, first, last, out)
    foreground, background = found["foreground"], found["background"]
    assert foreground.seen.tolist() == [True, True, True, False]
    assert background.seen.tolist() == [True, True]
    assert torch.equal(foreground.condition, torch.cat([clip.video[:, :, -1], clip.video[:, :, 0]]))
    assert torch.equal(foreground.made[2:], out.last_foreground)
    assert torch.equal(foreground.made[:2, :, :60], out.first_foreground[:, :, :60])
    for images in (foreground.made[:2], background.made, background.real):
        assert not images[:, :, 60:].any()
    assert torch.equal(background.made[:, :, :60], out.first_background[:, :, :60])


@pytest.mark.parametrize("kind", ["hinge", "bce"])
def test_no_gradient_crosses_between_the_players(kind: Kind, make_clip: Any) -> None:
    objective, clip = build(frame_critic={"weight": 0.5, "loss": kind}), make_clip(2)
    assert objective.players == ("critic", "model")
    check_players(objective)
    loss = objective("critic", clip)
    loss.total.backward()
    assert list(loss.terms) == ["frame_critic"]
    assert all(p.grad is None for p in objective.model.parameters())
    # By hinge, real and made pull the last bias in opposite directions: together 0 as long as the critic is unsure.
    assert all(p.grad is not None and p.grad.any() for p in objective.critic.parameters() if p.ndim > 1)
    objective.zero_grad(set_to_none=True)
    with turn(objective, "model"):
        loss = objective("model", clip)
        loss.total.backward()
    assert all(p.grad is None for p in objective.critic.parameters())
    rest = sum(loss.terms[n] for n in loss.terms if n.startswith("rec_")) + loss.terms["feature"]
    torch.testing.assert_close(loss.total.detach(), rest + 0.5 * loss.terms["adversarial"])


def test_the_critics_teach_the_decoders_and_motion_but_not_through_the_blocked_path(make_clip: Any) -> None:
    """The last foreground's verdict must not reach the first one's features, as eq. 1 asks of every gradient."""
    objective, clip = build(frame_critic={"weight": 1.0}), make_clip(2)
    first, last = (target(clip, t, objective.config) for t in (0, -1))
    out = objective.model(clip.video)
    frames = judged(clip, first, last, out)["foreground"]
    verdict = objective.critic.frames["foreground"](frames.made[2:], frames.condition[2:])
    pass_for_real(verdict, frames.seen[2:], "hinge").backward()
    gradient = objective.encoder().mapping.convolution.weight.grad
    assert gradient is not None
    channels = objective.encoder().channels
    background, foreground, motion = gradient.split([channels.background, channels.foreground, channels.motion])
    assert not background.any()
    assert not foreground.any()
    assert motion.any()
    assert all(p.grad is not None for p in objective.model.foreground_decoder.parameters())
    assert all(p.grad is None for p in objective.model.background_decoder.parameters())


def test_the_critics_learn_to_tell(make_clip: Any) -> None:
    objective, clip = build(frame_critic={"weight": 1.0}), make_clip(2)
    optimizer = torch.optim.Adam(objective.critic.parameters(), lr=2e-3)
    paid = []
    for _ in range(25):
        with turn(objective, "critic"):
            loss = objective("critic", clip)
            optimizer.zero_grad()
            loss.total.backward()
        optimizer.step()
        paid.append(loss.total.item())
    assert paid[0] == pytest.approx(2, abs=0.3)  # hinge of a critic that says 0: 1 + 1
    assert paid[-1] < 0.7 * paid[0]
