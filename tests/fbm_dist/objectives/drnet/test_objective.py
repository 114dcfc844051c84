"""DrNet as a game: both losses recomputed, who may learn from what, that it learns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fbm_dist.clip import Clip
from fbm_dist.objectives.drnet.config import DrNetAutoencoderConfig, DrNetConfig
from fbm_dist.objectives.drnet.objective import DrNet
from fbm_dist.schema import ClipSpec
from fbm_dist.training.engines.turn import check_players, turn

TINY: dict[str, Any] = {"width": 0.05, "content_dim": 8, "pose_dim": 3}


def build(seed: int = 0, **settings: Any) -> DrNet:
    torch.manual_seed(seed)
    return DrNetConfig.model_validate(TINY | settings).build()


def four(make_clip: Any, batch: int = 3, **settings: Any) -> Clip:
    return make_clip(batch, frames=4, **settings)


def gradients(objective: DrNet, player: str, clip: Clip) -> dict[str, Tensor | None]:
    objective.zero_grad()
    objective(player, clip).total.backward()
    return {name: None if p.grad is None else p.grad.clone() for name, p in objective.named_parameters()}


def test_the_models_total_is_eq_5(make_clip: Any) -> None:
    objective, clip = build(alpha=0.7, beta=0.3), four(make_clip)
    loss = objective("model", clip)
    with torch.no_grad():  # train mode: batch statistics, so the same numbers again
        encoder = objective.model.encoder
        still, other = (encoder.still(clip.video[:, :, t]) for t in (0, 1))
        pose, other_pose = (encoder.moving(clip.video[:, :, t]) for t in (2, 3))
        image = objective.model.decode(still, pose).numpy()
        p = 1 / (1 + np.exp(-objective.critic(pose, other_pose).double().numpy()))
    expected = {
        "reconstruction": ((image - (clip.video[:, :, 2].numpy() + 1) / 2) ** 2).mean(),
        "similarity": ((still.content - other.content) ** 2).mean().item(),
        "adversarial": (-(np.log(p) + np.log(1 - p)) / 2).mean(),
    }
    assert {name: term.item() for name, term in loss.terms.items()} == pytest.approx(expected, rel=1e-4)
    total = expected["reconstruction"] + 0.7 * expected["similarity"] + 0.3 * expected["adversarial"]
    assert loss.total.item() == pytest.approx(total, rel=1e-4)
    assert not any(term.requires_grad for term in loss.terms.values())


def test_the_critics_total_is_eq_3_on_clips_of_other_films(make_clip: Any) -> None:
    objective = build()
    clip = replace(four(make_clip, 4), film=torch.tensor([7, 7, 3, 7]))
    loss = objective("critic", clip)
    with torch.no_grad():
        first, second = (objective.model.encoder.moving(clip.video[:, :, t]) for t in (0, 1))
        stranger = second[[2, 2, 3, 2]]  # the next one of another film: never itself, never its own film
        same, different = (objective.critic(first, x).double().numpy() for x in (second, stranger))
    p, q = (1 / (1 + np.exp(-x)) for x in (same, different))
    assert loss.total.item() == pytest.approx((-np.log(p).mean() - np.log(1 - q).mean()) / 2, rel=1e-4)
    assert loss.terms["scene"].item() == loss.total.item()
    assert loss.terms["accuracy"].item() == pytest.approx(((same > 0).mean() + (different <= 0).mean()) / 2)
    assert loss.terms["strangers"] == 1


def test_a_batch_of_one_film_teaches_the_critic_nothing(make_clip: Any) -> None:
    objective = build()
    clip = four(make_clip)
    clip = replace(clip, film=torch.zeros_like(clip.film))
    loss = objective("critic", clip)
    assert (loss.total.item(), loss.terms["strangers"].item()) == (0, 0)
    loss.total.backward()
    assert all(p.grad is not None and not p.grad.any() for p in objective.critic.parameters())


def test_the_critic_is_trained_alone(make_clip: Any) -> None:
    """Even without `turn`: poses are computed without gradient."""
    objective = build()
    check_players(objective)
    found = gradients(objective, "critic", four(make_clip))
    assert {name.split(".")[0] for name, g in found.items() if g is not None and g.any()} == {"critic"}
    assert all(g is None for name, g in found.items() if name.startswith("model."))


def test_the_model_learns_through_a_frozen_critic(make_clip: Any) -> None:
    objective, clip = build(), four(make_clip)
    with turn(objective, "model"):
        found = gradients(objective, "model", clip)
    assert all(g is None for name, g in found.items() if name.startswith("critic."))
    assert all(g is not None and g.isfinite().all() for name, g in found.items() if name.startswith("model."))


@pytest.mark.parametrize(("weight", "part"), [("alpha", "content"), ("beta", "pose")])
def test_each_weighted_term_teaches_one_encoder(weight: str, part: str, make_clip: Any) -> None:
    """The loss is linear in its weights: what the term adds to a gradient shows in the difference."""
    clip = four(make_clip)
    settings: list[dict[str, Any]] = [{"alpha": 0.0, "beta": 0.0, weight: w} for w in (0.0, 5.0)]
    off, on = (gradients(build(**given), "model", clip) for given in settings)
    changed = set()
    for name, gradient in on.items():
        before = off[name]
        if name.startswith("model.") and gradient is not None and before is not None:
            if not torch.allclose(gradient, before, rtol=1e-4, atol=1e-8):
                changed.add(".".join(name.split(".")[:3]))
    assert changed == {f"model.encoder.{part}"}


def test_the_second_frames_are_constants(make_clip: Any) -> None:
    """hc of frame 2 and hp of frame 4 get no gradient: it reaches frames 1 (content) and 3 (pose) alone."""
    clip = four(make_clip)
    video = clip.video.clone().requires_grad_(True)
    build()("model", replace(clip, video=video)).total.backward()
    assert video.grad is not None
    assert [bool(video.grad[:, :, t].any()) for t in range(4)] == [True, False, True, False]


@pytest.mark.parametrize("player", ["critic", "model"])
def test_bf16_keeps_the_loss_in_fp32_and_every_gradient(player: str, make_clip: Any) -> None:
    objective = build()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = objective(player, four(make_clip))
    assert loss.total.dtype == torch.float32
    loss.total.backward()
    own = objective.get_submodule(player)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in own.parameters())


def train(objective: DrNet, clip: Clip, steps: int, rate: float = 2e-3) -> list[dict[str, float]]:
    optimizers = {
        player: torch.optim.Adam(objective.get_submodule(player).parameters(), lr=rate, betas=(0.5, 0.999))
        for player in objective.players
    }
    curve = []
    for _ in range(steps):
        row: dict[str, float] = {}
        for player, optimizer in optimizers.items():
            with turn(objective, player):
                optimizer.zero_grad()
                loss = objective(player, clip)
                loss.total.backward()
                optimizer.step()
            row |= {f"{player}/loss": loss.total.item()} | {name: term.item() for name, term in loss.terms.items()}
        curve.append(row)
    return curve


def test_it_overfits_a_few_clips(make_clip: Any) -> None:
    """Four clips, 60 steps of both players."""
    curve = train(build(width=0.125), four(make_clip, 4), steps=60, rate=5e-3)
    assert curve[-1]["reconstruction"] < 0.15 * curve[0]["reconstruction"], curve[::10]


def test_a_critic_of_frozen_poses_learns_to_tell_clips_apart(make_clip: Any) -> None:
    """With the model left as it is, whatever its poses know of the clip shows."""
    objective, clip = build(pose_dim=8), four(make_clip, 8)
    optimizer = torch.optim.Adam(objective.critic.parameters(), lr=5e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss = objective("critic", clip)
        loss.total.backward()
        optimizer.step()
    assert loss.terms["accuracy"] > 0.9
    assert loss.total < 0.4


def test_the_same_seed_gives_the_same_bits(make_clip: Any) -> None:
    first, second, other = (build(seed) for seed in (1, 1, 2))
    curves = [train(objective, four(make_clip), steps=2) for objective in (first, second, other)]
    assert curves[0] == curves[1] != curves[2]
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_eval_mode_changes_no_statistics(make_clip: Any) -> None:
    objective = build().eval()
    before = {name: b.clone() for name, b in objective.named_buffers()}
    for player in objective.players:
        objective(player, four(make_clip))
    assert all(torch.equal(b, before[name]) for name, b in objective.named_buffers())


def test_the_encoder_stands_alone(make_clip: Any) -> None:
    """Its weights are a prefix of the objective's; content is the first frame's, poses follow in the order of time."""
    objective = build()
    train(objective, four(make_clip), steps=1)
    prefix = "model.encoder."
    state = {k.removeprefix(prefix): v for k, v in objective.state_dict().items() if k.startswith(prefix)}
    encoder = objective.config.build_encoder()
    encoder.load_state_dict(state)
    clip = four(make_clip, 2, seed=3)
    ours, theirs = objective.eval().features(clip), encoder.eval()(clip.video)
    assert list(ours) == ["content", "pose"]
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert torch.equal(ours["content"], encoder.still(clip.video[:, :, 0]).content)
    for t in range(4):
        torch.testing.assert_close(ours["pose"][:, 3 * t : 3 * t + 3], encoder.moving(clip.video[:, :, t]))
    assert objective.encoder() is objective.model.encoder


def test_what_it_cannot_learn_from_is_refused(make_clip: Any) -> None:
    objective = build()
    with pytest.raises(ValueError, match=r"\(b, 3, 4, 64, 64\).*data\.clip\.frames=4, data\.clip\.within=20"):
        objective("model", make_clip(2, frames=16))
    with pytest.raises(ValueError, match=r"training\.micro_batch to 2 or more"):
        objective("model", four(make_clip, 1))
    objective.eval()("model", four(make_clip, 1))


@pytest.mark.parametrize("schema", [DrNetConfig, DrNetAutoencoderConfig])
@pytest.mark.parametrize(
    ("clip", "told"),
    [
        ({"within": None}, "frames=4 within=None"),  # 4 consecutive frames are what the original wrongly trained on
        ({"frames": 16, "within": None}, r"set data\.clip\.frames=4 and data\.clip\.within=20"),
        ({"frames": 3, "negative": True}, "negative=True"),
        ({"within": None, "offsets": (0, 1, 2, 9)}, r"offsets=\[0, 1, 2, 9\]"),
        ({"size": 128}, "data.clip.size is 128, but the objective's size is 64"),
    ],
)
def test_training_clips_that_do_not_suit_are_refused(schema: Any, clip: dict[str, Any], told: str) -> None:
    spec = ClipSpec.model_validate({"frames": 4, "within": 20, "size": 64, "mask": False} | clip)
    with pytest.raises(ValueError, match=told):
        schema().check_clip(spec)


def test_training_clips_and_those_of_the_encoder() -> None:
    spec = ClipSpec(frames=4, within=20, size=64, mask=False)
    config = DrNetConfig(frames=5)
    config.check_clip(spec)
    shown = config.pictures(spec)
    assert (shown.frames, shown.stride, shown.within) == (5, 4, None)
    with pytest.raises(ValueError, match="not resnet"):
        DrNetConfig(content="resnet", skips=True)
