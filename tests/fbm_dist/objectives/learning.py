"""Steps of the player `model`, which tests of every room learn from."""

from __future__ import annotations

import torch

from fbm_dist.clip import Clip
from fbm_dist.objectives.objective import Objective


def step(objective: Objective, optimizer: torch.optim.Optimizer, clip: Clip) -> dict[str, float]:
    """Total and terms of the loss that the step was taken on."""
    optimizer.zero_grad()
    loss = objective("model", clip)
    loss.total.backward()
    optimizer.step()
    return {"total": loss.total.item()} | {name: term.item() for name, term in loss.terms.items()}


def train(objective: Objective, clip: Clip, steps: int, lr: float = 3e-3) -> list[dict[str, float]]:
    """Steps of Adam on one batch."""
    optimizer = torch.optim.Adam(objective.parameters(), lr=lr)
    return [step(objective, optimizer, clip) for _ in range(steps)]
