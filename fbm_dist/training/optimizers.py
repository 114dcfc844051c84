"""One optimizer per player, with the objective's own say on what decays."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import nn

from fbm_dist.objectives.objective import Objective
from fbm_dist.schema import Optimizer
from fbm_dist.training.turn import player_module


def build_optimizer(config: Optimizer, objective: Objective, player: str) -> torch.optim.Optimizer:
    """The optimizer of `player`'s trainable parameters, one group per weight-decay factor (`Objective.weight_decay`).

    adam: L2 is coupled into the gradient, as in the FBM code; adamw: decoupled; sgd: momentum, coupled L2.
    """
    own = {id(p) for p in player_module(objective, player).parameters() if p.requires_grad}
    groups: dict[float, list[nn.Parameter]] = defaultdict(list)
    for name, parameter in objective.named_parameters():
        if id(parameter) in own:
            groups[float(objective.weight_decay(name, parameter))].append(parameter)
    # Sorted, so that the order of groups (and of ZeRO's flat partitions) does not hang on the order of definition.
    parameters: list[dict[str, Any]] = [
        {"params": groups[factor], "weight_decay": config.weight_decay * factor} for factor in sorted(groups)
    ]
    if config.kind == "sgd":
        return torch.optim.SGD(parameters, lr=config.lr, momentum=config.momentum)
    kind = torch.optim.AdamW if config.kind == "adamw" else torch.optim.Adam
    return kind(parameters, lr=config.lr, betas=config.betas, eps=config.eps)
