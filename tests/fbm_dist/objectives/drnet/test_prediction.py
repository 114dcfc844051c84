"""The LSTM over a frozen DrNet: loss by hand, what learns, generation step by step, long rollouts, refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fbm_dist.objectives.drnet.config import DrNetAutoencoderConfig, DrNetConfig, DrNetPredictionConfig
from fbm_dist.objectives.drnet.frames import as_frames
from fbm_dist.objectives.drnet.prediction import DrNetPrediction, PosePredictor
from fbm_dist.schema import ClipSpec
from tests.fbm_dist.objectives.drnet.lively import cuts, enliven_
from tests.fbm_dist.objectives.learning import train

TINY: dict[str, Any] = {"width": 0.05, "content_dim": 8, "pose_dim": 3}
SMALL: dict[str, Any] = {"frames": 7, "n_past": 3, "hidden": 12}


def build(seed: int = 0, *, trained: bool = True, **settings: Any) -> DrNetPrediction:
    torch.manual_seed(seed)
    trunk = settings.pop("trunk", {"family": "drnet"}) | TINY
    objective = DrNetPredictionConfig.model_validate(SMALL | {"trunk": trunk} | settings).build()
    if trained:
        has_trained(objective)
    return objective


def has_trained(objective: DrNetPrediction) -> None:
    """On blocks of colour."""
    enliven_(objective.model, F.interpolate(torch.rand(16, 3, 4, 4) * 2 - 1, size=(64, 64)))


def codes(objective: DrNetPrediction, video: Tensor) -> Tensor:
    return torch.stack([objective.model.encoder.moving(frame) for frame in video.unbind(2)], dim=1)


def by_hand(predictor: PosePredictor, poses: Tensor, content: Tensor) -> float:
    """The loss with LSTM cells written out; the content is the same at every step."""
    layers = range(2)
    hidden, cell = ([torch.zeros(2, 12) for _ in layers] for _ in range(2))
    errors = []
    for t in range(6):
        x = predictor.embedding(torch.cat([poses[:, t], content], dim=1))
        for n in layers:
            weights = [getattr(predictor.lstm, f"{k}_l{n}") for k in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
            gates = F.linear(x, weights[0], weights[2]) + F.linear(hidden[n], weights[1], weights[3])
            i, f, g, o = gates.chunk(4, dim=1)
            cell[n] = f.sigmoid() * cell[n] + i.sigmoid() * g.tanh()
            hidden[n] = x = o.sigmoid() * cell[n].tanh()
        following = F.normalize(predictor.output(x).tanh(), dim=1)
        errors.append((following - poses[:, t + 1]).square().mean())
    return torch.stack(errors).mean().item()


@pytest.mark.parametrize("family", ["drnet", "drnet_autoencoder"])
def test_the_loss_is_the_error_of_the_next_pose_at_every_step(family: str, make_clip: Any) -> None:
    """Of the content of the last frame seen; that of any other frame would show."""
    objective, clip = build(trunk={"family": family}), cuts(make_clip, 2, frames=7)
    with torch.no_grad():
        for parameter in objective.predictor.parameters():
            parameter.mul_(3)  # fresh ones hardly listen to the content
        loss = objective("model", clip)
        poses = codes(objective, clip.video)
        contents = [objective.model.encoder.still(frame).content for frame in clip.video.unbind(2)]
        losses = [by_hand(objective.predictor, poses, content) for content in contents]
    assert loss.total.item() == pytest.approx(losses[2], rel=1e-4)
    assert loss.terms["pose"].item() == loss.total.item()
    assert loss.terms["copy"].item() == pytest.approx((poses[:, 1:] - poses[:, :-1]).square().mean().item(), rel=1e-4)
    if family == "drnet":
        assert min(abs(other / losses[2] - 1) for t, other in enumerate(losses) if t != 2) > 5e-3
    else:
        assert contents[0].shape == (2, 0)


def test_only_the_lstm_learns_and_the_trunk_stays_as_it_is(make_clip: Any) -> None:
    objective, clip = build().train(), make_clip(2, frames=7)
    before = {name: value.clone() for name, value in objective.model.state_dict().items()}
    loss = objective("model", clip)
    loss.total.backward()
    found = {name.split(".")[0] for name, p in objective.named_parameters() if p.grad is not None}
    assert found == {"predictor"}
    assert all(p.grad is not None and p.grad.any() for p in objective.predictor.parameters())
    assert not any(p.requires_grad for p in objective.model.parameters())
    assert not any(module.training for module in objective.model.modules()), "eval mode: unlike the original"
    assert all(torch.equal(value, before[name]) for name, value in objective.model.state_dict().items())
    factors = {name: objective.weight_decay(name, p) for name, p in objective.named_parameters()}
    assert {name for name, factor in factors.items() if factor} == {
        n for n in factors if n.startswith("predictor.") and "weight" in n
    }


def test_it_learns_poses_that_turn(make_clip: Any) -> None:
    """A trunk that gives poses on a circle: what comes next is a rotation of what is there."""
    objective = build()
    angle = torch.linspace(0, 6.28, 9)[:8, None] + 0.5 * torch.arange(7)
    poses = torch.stack([angle.cos(), angle.sin(), torch.zeros_like(angle)], dim=2)
    content = torch.zeros(8, 8)
    optimizer = torch.optim.Adam(objective.predictor.parameters(), lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        following, _ = objective.predictor(poses[:, :-1], content)
        loss = F.mse_loss(following, poses[:, 1:])
        loss.backward()
        optimizer.step()
    copy = F.mse_loss(poses[:, :-1], poses[:, 1:])
    assert loss < 0.05 * copy
    with torch.no_grad():  # fed with its own predictions it goes on turning
        following, state = objective.predictor(poses[:, :3], content)
        pose = following[:, -1:]
        for _ in range(3):
            pose, state = objective.predictor(pose, content, state)
    assert F.mse_loss(pose[:, 0], poses[:, 6]) < 0.2 * copy


def test_it_overfits_a_few_clips(make_clip: Any) -> None:
    """By its own loss, over a trunk that has seen their frames: far below who copies, and below who says one pose for all clips."""
    objective, clip = build(hidden=64), make_clip(4, frames=7)
    enliven_(objective.model, as_frames(clip.video))
    poses = codes(objective, clip.video)[:, 1:]
    mean = F.mse_loss(poses.mean(0, keepdim=True).expand_as(poses), poses).item()
    curve = train(objective, clip, steps=120, lr=1e-2)
    assert curve[-1]["pose"] < 0.05 * min(curve[-1]["copy"], mean), curve[::20]


def test_generation_feeds_back_its_own_poses(make_clip: Any) -> None:
    """Against a loop that gives the LSTM the whole past each time; frames after n_past are not looked at."""
    objective, clip = build(), make_clip(2, frames=7)
    made = objective.generate(clip.video, n_past=3, steps=4)
    assert made.shape == (2, 3, 4, 64, 64)
    assert made.dtype == torch.float32
    assert not made.requires_grad
    with torch.no_grad():
        poses, still = codes(objective, clip.video[:, :, :3]), objective.model.encoder.still(clip.video[:, :, 2])
        for t in range(4):
            following, _ = objective.predictor(poses, still.content)
            poses = torch.cat([poses, following[:, -1:]], dim=1)
            expected = objective.model.decode(still, poses[:, -1]) * 2 - 1
            torch.testing.assert_close(made[:, :, t], expected, rtol=1e-4, atol=1e-5)
    changed = clip.video.clone()
    changed[:, :, 3:] = 0
    assert torch.equal(objective.generate(changed, 3, 4), made)
    assert torch.equal(objective.generate(clip.video[:, :, :3], 3, 4), made), "the past alone is enough"
    assert not torch.equal(objective.generate(clip.video, 4, 4), made)


def test_hundreds_of_frames(make_clip: Any) -> None:
    made = build().generate(make_clip(1, frames=7).video, n_past=5, steps=500)
    assert made.shape == (1, 3, 500, 64, 64)
    assert made.isfinite().all()
    assert -1 <= made.min() < made.max() <= 1


def test_skips_come_from_the_last_frame_seen(make_clip: Any) -> None:
    objective, clip = build(trunk={"family": "drnet", "skips": True}), make_clip(2, frames=7)
    still = objective.model.encoder.still(clip.video[:, :, 2])
    assert len(still.maps) == 4
    following, _ = objective.predictor(codes(objective, clip.video[:, :, :3]), still.content)
    expected = objective.model.decode(still, following[:, -1]) * 2 - 1
    torch.testing.assert_close(objective.generate(clip.video, 3, 1)[:, :, 0], expected)


@pytest.mark.parametrize("family", ["drnet", "drnet_autoencoder"])
def test_features_and_the_encoder_alone(family: str, make_clip: Any) -> None:
    objective, clip = build(trunk={"family": family}), make_clip(2, frames=7)
    features = objective.features(clip)
    wanted = {"content": (2, 8), "pose": (2, 21), "motion": (2, 12)}
    wanted = wanted if family == "drnet" else {"pose": (2, 77), "motion": (2, 12)}
    assert {name: tuple(value.shape) for name, value in features.items()} == wanted
    encoder = objective.config.build_encoder()
    encoder.load_state_dict(objective.encoder().state_dict())
    theirs = encoder.eval()(clip.video)
    assert all(torch.equal(value, theirs[name]) for name, value in features.items())
    shared = {id(p) for p in objective.parameters()}
    assert all(id(p) in shared for p in objective.encoder().parameters())
    backwards = objective.encoder()(clip.video.flip(2))
    assert not torch.allclose(backwards["motion"], features["motion"]), "motion knows the order"


def test_bf16_keeps_the_loss_in_fp32(make_clip: Any) -> None:
    objective = build()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = objective("model", make_clip(2, frames=7))
    assert loss.total.dtype == torch.float32
    loss.total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in objective.predictor.parameters())


def test_a_trunk_that_was_never_trained_is_refused(make_clip: Any) -> None:
    """Its codes are as predictable as any, and worth nothing. So is one that a run of other settings has filled in part."""
    clip = make_clip(2, frames=7)
    with pytest.raises(
        ValueError, match=r"never been trained: \d+ of its \d+ kernels .*give init_from, .*family 'drnet'"
    ):
        build(trained=False)("model", clip)
    objective = build(trained=False)
    weight = objective.model.decoder.get_parameter("ups.0.0.weight")
    kept = weight.clone()
    has_trained(objective)
    with torch.no_grad():
        weight.copy_(kept)
    with pytest.raises(
        ValueError, match=r"1 of its 15 kernels are as they were drawn, e\.g\. 'decoder\.ups\.0\.0\.weight'"
    ):
        objective("model", clip)
    build()("model", clip)


def test_what_does_not_fit_is_refused(make_clip: Any) -> None:
    objective = build()
    with pytest.raises(ValueError, match=r"\(b, 3, 7, 64, 64\)"):
        objective("model", make_clip(2, frames=6))
    with pytest.raises(ValueError, match="n_past=8 of a video of 7 frames; give 1 to 7"):
        objective.generate(make_clip(1, frames=7).video, 8, 1)
    with pytest.raises(ValueError, match="n_past=7 of frames=7 leaves nothing to predict"):
        DrNetPredictionConfig(frames=7, n_past=7)
    with pytest.raises(ValueError, match="size is 128, but the trunk's is 64"):
        DrNetPredictionConfig(size=128, trunk=DrNetConfig())
    config = DrNetPredictionConfig(trunk=DrNetAutoencoderConfig())
    config.check_clip(ClipSpec(frames=15, size=64, stride=2, mask=False))
    with pytest.raises(ValueError, match=r"data\.clip\.frames is 16, but the objective's frames is 15"):
        config.check_clip(ClipSpec(frames=16, size=64, mask=False))
    with pytest.raises(ValueError, match=r"leave data\.clip\.offsets, within and negative out"):
        config.check_clip(ClipSpec(frames=15, within=20, size=64, mask=False))
