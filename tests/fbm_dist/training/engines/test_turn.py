"""Whose turn it is: gradients, frozen parts, and what a player owns."""

from __future__ import annotations

import pytest
import torch

from fbm_dist.training.engines.turn import PlayerView, check_players, player_module, turn
from tests.toys import Duel, Solo, make_clip


@pytest.mark.parametrize("player", ["critic", "model"])
def test_gradients_reach_the_player_alone(player: str) -> None:
    game = Duel()
    with turn(game, player):
        game(player, make_clip([0, 1, 2])).total.backward()
    other = "model" if player == "critic" else "critic"
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for n, p in owned(game, player))
    assert all(p.grad is None for n, p in owned(game, other))
    assert all(p.requires_grad for p in game.parameters())


def owned(game: Duel, player: str) -> list[tuple[str, torch.nn.Parameter]]:
    # The colour head plays in the model's loss only; everything else in both.
    return [(n, p) for n, p in player_module(game, player).named_parameters() if player == "model" or "head" not in n]


def test_what_the_objective_froze_stays_frozen() -> None:
    game = Duel()
    game.model["trunk"].conv.requires_grad_(False)
    with turn(game, "critic"):
        assert not any(p.requires_grad for p in game.model.parameters())
    assert [p.requires_grad for p in game.model["trunk"].conv.parameters()] == [False, False]
    assert all(p.requires_grad for p in game.model["head"].parameters())


def test_the_turn_ends_with_an_error_too() -> None:
    game = Duel()
    with pytest.raises(KeyError), turn(game, "model"):
        raise KeyError
    assert all(p.requires_grad for p in game.parameters())


def test_a_lone_player_owns_the_whole_objective() -> None:
    solo = Solo()
    assert player_module(solo, "model") is solo
    with turn(solo, "model"):
        assert all(p.requires_grad for p in solo.parameters())


def test_a_view_registers_its_player_alone_and_plays_the_whole_game() -> None:
    game = Duel()
    view = PlayerView(game, "critic")
    assert {id(p) for p in view.parameters()} == {id(p) for p in game.critic.parameters()}
    clip = make_clip([0, 1])
    total, terms = view(clip)
    torch.testing.assert_close(total, game.forward("critic", clip).total)
    assert list(terms) == ["scene"]


def test_shared_and_untrainable_players_are_refused() -> None:
    shared = Duel()
    shared.critic.append(shared.model["head"])
    with pytest.raises(ValueError, match="belongs to two players, 'critic' and 'model'"):
        check_players(shared)
    frozen = Duel()
    frozen.critic.requires_grad_(False)
    with pytest.raises(ValueError, match="player 'critic' of Duel has no parameter to train"):
        check_players(frozen)
