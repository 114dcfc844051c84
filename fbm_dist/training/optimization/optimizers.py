"""One optimizer per player: its settings, its parameter groups, and its peak learning rate at this batch size."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fbm_dist.objectives.objective import Objective
from fbm_dist.schema import Optimizer, ParameterGroup, Player, Run, Schedule
from fbm_dist.training.engines.turn import player_module

LR_FACTOR = "lr_factor"  # key of a parameter group: what sets its rate multiplies by it


@dataclass(frozen=True)
class Settings:
    """How one player is optimised."""

    optimizer: Optimizer
    schedule: Schedule


def settings(run: Run, player: str) -> Settings:
    """`player`'s own optimizer and schedule (`players`), the run's where it has none of its own."""
    own = run.players.get(player, Player())
    return Settings(own.optimizer or run.optimizer, own.schedule or run.schedule)


def check_settings(run: Run, objective: Objective) -> None:
    """Every name under `players` is a player, and every parameter group takes a parameter of those who have it.

    Raises:
        ValueError: naming the key, and what would do.
    """
    for name in run.players:
        if name not in objective.players:
            raise ValueError(
                f"players.{name}: {type(objective).__name__} has no such player; it has {', '.join(objective.players)}"
            )
    users: dict[str, list[str]] = defaultdict(list)  # key of the optimizer's section -> who has these settings
    for player in objective.players:
        own = run.players.get(player, Player()).optimizer
        users["optimizer" if own is None else f"players.{player}.optimizer"].append(player)
    for key, players in users.items():
        names = [name for player in players for name in parameter_names(objective, player)]
        groups = settings(run, players[0]).optimizer.groups
        taken = {group_of(groups, name) for name in names}
        for index, group in enumerate(groups):
            if index not in taken:
                found = any(_search(group, name) for name in names)
                why = "an earlier group takes all that it matches" if found else f"names are {_some(names)}"
                raise ValueError(f"{key}.groups.{index}.pattern {group.pattern!r} takes no parameter: {why}")


def parameter_names(objective: Objective, player: str) -> list[str]:
    """The full names of `player`'s parameters, in the objective's order."""
    own = {id(p) for p in player_module(objective, player).parameters()}
    return [name for name, parameter in objective.named_parameters() if id(parameter) in own]


def group_of(groups: tuple[ParameterGroup, ...], name: str) -> int | None:
    """The index of the first group whose pattern is found in the parameter's `name`; None: it belongs to the rest.

    Raises:
        ValueError: a pattern is no regular expression.
    """
    return next((index for index, group in enumerate(groups) if _search(group, name)), None)


def build_optimizer(config: Optimizer, objective: Objective, player: str) -> torch.optim.Optimizer:
    """The optimizer of `player`'s trainable parameters, one group per pair of factors on learning rate and weight decay.

    adam: L2 is coupled into the gradient, as in the FBM code; adamw: decoupled; sgd: momentum, coupled L2. Groups are built at
    `config.lr` times their factor; the engine sets the step's rate times the factor (`LR_FACTOR`) in their place. A group of
    factor 0 is frozen: its weights do not move, though BatchNorm statistics inside it go on.
    """
    own = {id(p) for p in player_module(objective, player).parameters() if p.requires_grad}
    members: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in objective.named_parameters():
        if id(parameter) in own:
            members[factors(config, objective, name, parameter)].append(parameter)
    # Sorted, so that the order of groups (and of ZeRO's flat partitions) does not hang on the order of definition.
    groups: list[dict[str, Any]] = [
        {
            "params": members[lr, decay],
            "lr": config.lr * lr,
            "weight_decay": config.weight_decay * decay,
            LR_FACTOR: lr,
        }
        for lr, decay in sorted(members)
    ]
    if config.kind == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)
    kind = torch.optim.AdamW if config.kind == "adamw" else torch.optim.Adam
    return kind(groups, lr=config.lr, betas=config.betas, eps=config.eps)


def factors(config: Optimizer, objective: Objective, name: str, parameter: nn.Parameter) -> tuple[float, float]:
    """(factor on the learning rate, factor on the weight decay); the latter is the objective's own unless a group says another."""
    index = group_of(config.groups, name)
    if index is None:
        return 1.0, float(objective.weight_decay(name, parameter))
    group = config.groups[index]
    decay = objective.weight_decay(name, parameter) if group.weight_decay is None else group.weight_decay
    return group.lr, float(decay)


def peak_rate(optimizer: Optimizer, global_batch: int) -> float:
    """The schedule's peak at `global_batch` clips a step, where `lr` was chosen for `lr_batch` of them.

    linear: lr * k with k = global_batch / lr_batch, for SGD (Goyal et al. 2017, arXiv:1706.02677).
    sqrt: lr * sqrt(k), for Adam and AdamW (Malladi et al. 2022, arXiv:2205.10287).
    """
    if optimizer.lr_batch is None:
        return optimizer.lr
    ratio = global_batch / optimizer.lr_batch
    return optimizer.lr * (ratio if optimizer.lr_scaling == "linear" else math.sqrt(ratio))


def _search(group: ParameterGroup, name: str) -> bool:
    try:
        return re.search(group.pattern, name) is not None
    except re.error as error:
        raise ValueError(f"optimizer group pattern {group.pattern!r} is no regular expression: {error}") from None


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
