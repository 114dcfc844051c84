"""The scene and the motion features: foregrounds in other scenes, pairs, the share of a change, and the game with the scene critic."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fbm_dist.objectives.fbm.adversarial import CHANCE, confuse_scenes
from fbm_dist.objectives.fbm.config import FBMConfig, Trimap
from fbm_dist.objectives.fbm.encoder import Bottleneck
from fbm_dist.objectives.fbm.objective import FBM
from fbm_dist.objectives.fbm.scene import Elsewhere, Views, scene_pairs, transplanted
from fbm_dist.objectives.fbm.share import share
from fbm_dist.training.engines.turn import check_players, turn

PAIRS = ["background", "reversed", "transplanted"]


def build(seed: int = 0, **settings: Any) -> FBM:
    torch.manual_seed(seed)
    return FBMConfig.model_validate({"width": 0.05, "size": 64} | settings).build()


def with_critic(pairs: str = "transplanted", **settings: Any) -> FBM:
    return build(scene_critic={"weight": 2.0, "pairs": pairs, "hidden": 16, **settings})


def rows(gradient: Tensor | None, objective: FBM) -> dict[str, bool]:
    """Which groups of the bottleneck a gradient of the mapping's weights reaches; BatchNorm mixes no channels."""
    assert gradient is not None
    channels = objective.encoder().channels
    parts = gradient.split([channels.background, channels.foreground, channels.motion])
    return {name: bool(part.any()) for name, part in zip(("background", "foreground", "motion"), parts, strict=True)}


def test_a_foreground_in_another_scene_in_numpy(make_clip: Any) -> None:
    """The foreground on the next film's frames, whose own foreground gives way to what is seen there at other times."""
    clip = make_clip(3)
    assert clip.mask is not None
    clip.mask[1, 0, :, :3] = 1  # always covered: grey
    made = transplanted(clip, FBMConfig())
    assert made.scene.tolist() == [1, 2, 0]
    assert made.exists.all()
    video, mask = clip.video.numpy(), clip.mask.numpy()
    for i, j in enumerate(made.scene.tolist()):
        free = mask[j] == 0
        seen = free.sum(axis=1)
        still = np.where(seen > 0, (video[j] * free).sum(axis=1) / np.maximum(seen, 1), 0)
        scene = np.where(free, video[j], still[:, None])
        expected = np.where(mask[i] == 1, video[i], scene)
        np.testing.assert_allclose(made.video[i].numpy(), expected, atol=1e-6)
    assert (made.video[0, :, :, :3][:, mask[0, 0, :, :3] == 0] == 0).all()


def test_nothing_is_set_where_there_is_no_other_film_or_no_foreground(make_clip: Any) -> None:
    clip = make_clip(3)
    assert clip.mask is not None
    assert not transplanted(replace(clip, film=torch.zeros(3, dtype=torch.long)), FBMConfig()).exists.any()
    clip.mask[1] = 0
    assert transplanted(clip, FBMConfig()).exists.tolist() == [True, False, True]


def test_what_a_trimap_does_not_know_goes_with_the_foreground(make_clip: Any) -> None:
    clip = make_clip(2)
    assert clip.mask is not None
    clip.mask[0, :, :, 50:] = 0.5
    made = transplanted(clip, FBMConfig(trimap=Trimap()))
    assert torch.equal(made.video[0, :, :, 50:], clip.video[0, :, :, 50:])
    assert not torch.equal(made.video[0, :, :, 40:50], clip.video[0, :, :, 40:50])


def test_the_share_in_numpy() -> None:
    torch.manual_seed(0)
    motion, moved = torch.rand(4, 3, 4, 4), torch.rand(4, 3, 4, 4)
    exists = torch.tensor([True, True, False, True])
    found = share(motion, moved, exists).item()
    one, two = motion[exists].numpy(), moved[exists].numpy()
    shares = []
    for c in range(3):
        spread = np.mean(one[:, c].var(axis=0, ddof=1) + two[:, c].var(axis=0, ddof=1))
        shares.append(np.mean((one[:, c] - two[:, c]) ** 2) / (spread + 1e-4))
    assert found == pytest.approx(np.mean(shares), rel=1e-4)


def test_the_share_is_0_where_nothing_changes_and_1_where_all_does() -> None:
    torch.manual_seed(0)
    motion, every = torch.rand(256, 3, 4, 4) + torch.rand(3, 4, 4), torch.ones(256, dtype=torch.bool)
    assert share(motion, motion, every).item() == 0
    shuffled = motion.roll(1, 0)
    assert share(motion, shuffled, every).item() == pytest.approx(1, abs=0.05)
    small = share(0.1 * motion, 0.1 * shuffled, every).item()
    assert small == pytest.approx(share(motion, shuffled, every).item(), abs=0.2)


def test_the_share_of_too_few_is_nothing_to_learn_from() -> None:
    motion, moved = (torch.rand(3, 2, 4, 4, requires_grad=True) for _ in range(2))
    found = share(motion, moved, torch.tensor([False, True, False]))
    found.backward()
    assert found.item() == 0
    for side in (motion, moved):
        assert side.grad is not None
        assert not side.grad.any()


def views(batch: int, seed: int = 0, scene: list[int] | None = None, exists: list[bool] | None = None) -> Views:
    generator = torch.Generator().manual_seed(seed)

    def maps() -> Tensor:
        return torch.rand(batch, 2, 4, 4, generator=generator, requires_grad=False).requires_grad_()

    place = torch.tensor(scene or list(range(batch)))
    elsewhere = Elsewhere(maps(), place, torch.tensor(exists or [True] * batch))
    return Views(Bottleneck(maps(), maps(), maps()), Bottleneck(maps(), maps(), maps()), elsewhere)


@pytest.mark.parametrize("kind", ["background", "reversed"])
def test_pairs_of_a_clip_and_of_two_films(kind: str) -> None:
    """Clips 0 and 2 are of one film: neither the same clip nor two scenes for certain."""
    seen = views(3)
    pairs = scene_pairs(kind, seen, torch.tensor([4, 5, 4]))
    assert pairs.same.tolist() == torch.eye(3, dtype=torch.bool).tolist()
    assert pairs.other.tolist() == [[False, True, False], [True, False, True], [False, True, False]]
    assert seen.reversed is not None
    right = seen.maps.background if kind == "background" else seen.reversed.motion
    assert torch.equal(pairs.left, seen.maps.motion)
    assert pairs.left.requires_grad
    assert torch.equal(pairs.right, right)
    assert not pairs.right.requires_grad


def test_pairs_that_share_the_scene_alone() -> None:
    """Clip 0 stands in the scene of 1, 1 in that of 2, 2 in that of 0 (which does not count), 3, of the film of 2, in that of 0."""
    seen = views(4, scene=[1, 2, 0, 0], exists=[True, True, False, True])
    pairs = scene_pairs("transplanted", seen, torch.tensor([0, 1, 2, 2]))
    assert pairs.same.nonzero().tolist() == [[0, 1], [1, 2], [3, 0]]
    # 0 in 1: beside a third film's (2, 3), never beside itself; 1 in 2: beside 0; 3 in 0: beside 1, and not beside 2 and itself.
    assert pairs.other.nonzero().tolist() == [[0, 2], [0, 3], [1, 0], [3, 1]]
    assert not pairs.left.requires_grad
    assert pairs.right.requires_grad


@pytest.mark.parametrize("pairs", PAIRS)
def test_two_players_and_no_gradient_crosses(pairs: str, make_clip: Any) -> None:
    objective, clip = with_critic(pairs), make_clip(3)
    assert objective.players == ("critic", "model")
    check_players(objective)
    loss = objective("critic", clip)  # even without `turn`
    loss.total.backward()
    assert set(loss.terms) == {"scene_critic", "scene_accuracy"}
    assert loss.total.item() == loss.terms["scene_critic"].item()
    assert all(p.grad is None for p in objective.model.parameters())
    assert all(p.grad is not None and p.grad.any() for p in objective.critic.scene.deeper.parameters())
    objective.zero_grad(set_to_none=True)
    with turn(objective, "model"):
        objective("model", clip).total.backward()
    assert all(p.grad is None for p in objective.critic.parameters())
    assert all(p.grad is not None for p in objective.model.parameters())


@pytest.mark.parametrize("pairs", PAIRS)
def test_the_critic_teaches_the_motion_features_alone(pairs: str, make_clip: Any) -> None:
    objective, clip = with_critic(pairs), make_clip(3)
    seen = objective._views(clip, objective.encoder().maps(clip.video))
    logits, found = objective._scenes(seen, clip)
    confuse_scenes(logits, found.same, found.other).backward()
    reached = rows(objective.encoder().mapping.convolution.weight.grad, objective)
    assert reached == {"background": False, "foreground": False, "motion": True}
    model = objective.model
    for part in (model.foreground_decoder, model.background_decoder, model.kernel_decoder, model.cross_convolution):
        assert all(p.grad is None for p in part.parameters())


def test_the_share_teaches_the_motion_features_alone(make_clip: Any) -> None:
    objective, clip = build(scene_share=1.0), make_clip(3)
    assert objective.players == ("model",)
    seen = objective._views(clip, objective.encoder().maps(clip.video))
    assert seen.elsewhere is not None
    share(seen.maps.motion, seen.elsewhere.motion, seen.elsewhere.exists).backward()
    reached = rows(objective.encoder().mapping.convolution.weight.grad, objective)
    assert reached == {"background": False, "foreground": False, "motion": True}


@pytest.mark.parametrize("pairs", PAIRS)
def test_the_models_total_has_the_terms_with_their_weights(pairs: str, make_clip: Any) -> None:
    clip = make_clip(3)
    objective = build(scene_critic={"weight": 2.0, "pairs": pairs, "hidden": 16}, scene_share=0.5, feature_weight=0.7)
    terms = (loss := objective("model", clip)).terms
    expected = sum(terms[name] for name in terms if name.startswith("rec_")) + 0.7 * terms["feature"]
    expected = expected + 2.0 * terms["scene_confusion"] + 0.5 * terms["scene_share"]
    torch.testing.assert_close(loss.total.detach(), expected)
    off = build(feature_weight=0.7)("model", clip)
    assert {"scene_confusion", "scene_share"}.isdisjoint(off.terms)
    same = {name: off.terms[name] for name in off.terms}
    assert {name: terms[name] for name in same} == same, "the other terms are what they are without"


def test_the_game_hides_a_scene(make_clip: Any) -> None:
    """Against a critic that has learnt this batch, the model's turns make it undecided, and the reconstructions go on."""
    objective, clip = with_critic("background"), make_clip(4)
    optimizers = {
        p: torch.optim.Adam(getattr(objective, p).parameters(), lr=lr) for p, lr in (("critic", 3e-3), ("model", 1e-3))
    }

    def step(player: str) -> dict[str, Tensor]:
        with turn(objective, player):
            loss = objective(player, clip)
            optimizers[player].zero_grad()
            loss.total.backward()
        optimizers[player].step()
        return loss.terms

    told = [step("critic")["scene_accuracy"].item() for _ in range(30)][-1]
    assert told > 0.9
    fooled = [step("model") for _ in range(15)]
    assert fooled[0]["scene_confusion"] > 1.1 * CHANCE
    assert fooled[-1]["scene_confusion"] - CHANCE < 0.5 * (fooled[0]["scene_confusion"] - CHANCE)
    assert fooled[-1]["rec_first_background"] < fooled[0]["rec_first_background"]


def test_the_same_seed_gives_the_same_bits_of_both_players(make_clip: Any) -> None:
    ends = []
    for seed in (1, 1, 2):
        objective = build(seed, scene_critic={"weight": 1.0, "hidden": 16}, random_frame="kernels")
        optimizer = torch.optim.SGD(objective.parameters(), lr=0.05)
        for player in objective.players * 2:
            optimizer.zero_grad()
            with turn(objective, player):
                objective(player, make_clip(3)).total.backward()
            optimizer.step()
        ends.append(dict(objective.named_parameters()))
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
    assert not all(torch.equal(value, ends[2][name]) for name, value in ends[0].items())


def test_eval_mode_changes_no_buffer_of_either_player(make_clip: Any) -> None:
    objective = build(scene_critic={"weight": 1.0}, scene_share=1.0, frame_critic={"weight": 1.0}).eval()
    before = {name: b.clone() for name, b in objective.named_buffers()}
    for player in objective.players:
        objective(player, make_clip(2))
    assert all(torch.equal(b, before[name]) for name, b in objective.named_buffers())


def test_bf16_keeps_the_games_losses_in_fp32(make_clip: Any) -> None:
    objective = build(scene_critic={"weight": 1.0}, scene_share=1.0, frame_critic={"weight": 1.0})
    for player in objective.players:
        with torch.autocast("cpu", dtype=torch.bfloat16), turn(objective, player):
            loss = objective(player, make_clip(3))
        assert loss.total.dtype == torch.float32
        assert all(term.dtype == torch.float32 for term in loss.terms.values())
        loss.total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in objective.parameters())


def test_one_film_alone_plays_no_game(make_clip: Any) -> None:
    objective = build(scene_critic={"weight": 1.0}, scene_share=1.0)
    clip = replace(make_clip(3), film=torch.zeros(3, dtype=torch.long))
    for player in objective.players:
        with turn(objective, player):
            loss = objective(player, clip)
            loss.total.backward()
        assert all(not loss.terms[n] for n in ("scene_critic", "scene_share", "scene_confusion") if n in loss.terms)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in objective.parameters())


def test_without_a_critic_there_is_one_player_and_no_weight_of_one() -> None:
    assert build().players == ("model",)
    assert not any(name.startswith("critic") for name in build().state_dict())
    with_share = build(scene_share=1.0).state_dict()
    assert with_share.keys() == build().state_dict().keys(), "a checkpoint of the default config fills it"
    names = [name for name in with_critic().state_dict() if not name.startswith("critic.")]
    assert names == list(build().state_dict())
