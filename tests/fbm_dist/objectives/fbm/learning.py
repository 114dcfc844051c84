"""A few steps on one batch, which tests of this room learn from."""

from __future__ import annotations

import torch

from fbm_dist.clip import Clip
from fbm_dist.objectives.objective import Objective


def train(objective: Objective, clip: Clip, steps: int) -> list[dict[str, float]]:
    """The model's total and terms of each step of Adam at 3e-3."""
    optimizer = torch.optim.Adam(objective.parameters(), lr=3e-3)
    curve = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = objective("model", clip)
        loss.total.backward()
        optimizer.step()
        curve.append({"total": loss.total.item()} | {name: term.item() for name, term in loss.terms.items()})
    return curve
