"""turn: gradients reach the player whose turn it is, and no other. PlayerView: what that player's engine wraps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from fbm_dist.clip import Clip
from fbm_dist.objectives.objective import Loss, Objective


def player_module(objective: Objective, player: str) -> nn.Module:
    """What `player` owns: the whole objective where it plays alone, else the objective's submodule of that name."""
    return objective if len(objective.players) == 1 else objective.get_submodule(player)


def check_players(objective: Objective) -> None:
    """Every parameter belongs to exactly one player, and every player has one to train.

    Raises:
        ValueError: naming the parameter or player.
    """
    owner: dict[int, str] = {}
    for player in objective.players:
        module = player_module(objective, player)
        if not any(p.requires_grad for p in module.parameters()):
            raise ValueError(f"player {player!r} of {type(objective).__name__} has no parameter to train")
        for name, parameter in module.named_parameters():
            other = owner.setdefault(id(parameter), player)
            if other != player:
                raise ValueError(f"parameter {name!r} belongs to two players, {other!r} and {player!r}")
    for name, parameter in objective.named_parameters():
        if id(parameter) not in owner:
            raise ValueError(f"parameter {name!r} belongs to none of the players {objective.players}")


@contextmanager
def turn(objective: Objective, player: str) -> Iterator[None]:
    """Freeze the other players' parameters for forward and backward of `player`; BatchNorm statistics go on as ever."""
    own = {id(p) for p in player_module(objective, player).parameters()}
    others = [p for p in objective.parameters() if p.requires_grad and id(p) not in own]
    try:
        for parameter in others:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in others:
            parameter.requires_grad_(True)


Opened = tuple[Tensor, dict[str, Tensor]]  # a Loss as a plain tuple


class PlayerView(nn.Module):
    """Registers one player's parameters alone, and computes that player's loss by the whole objective.

    DeepSpeed partitions, reduces and casts what a module registers: with this view an engine touches its own player only, and
    all of the forward runs inside the engine, where autocast and ZeRO-3's hooks act.
    """

    def __init__(self, objective: Objective, player: str) -> None:
        super().__init__()
        self.owned = player_module(objective, player)
        self.player = player
        # ZeRO-3 fetches a module's own parameters for the backward pass by hooks on its output, and sees tensors in plain containers
        # only: the objective's Loss is opened before those hooks, which come later, look at it.
        objective.register_forward_hook(_opened)
        self._game: Callable[[str, Clip], Opened] = objective.__call__  # a bound method: seen, not registered

    def forward(self, clip: Clip) -> Opened:
        """(total, terms) of this player on `clip`."""
        return self._game(self.player, clip)


def _opened(module: nn.Module, inputs: Any, output: Loss | Opened) -> Opened:
    return (
        (output.total, output.terms) if isinstance(output, Loss) else output
    )  # a tuple: another player's view was first
