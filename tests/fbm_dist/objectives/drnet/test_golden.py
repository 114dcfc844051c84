"""DrNet's losses over a few steps of the game at a fixed seed, against a stored curve: what should not move must not."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from fbm_dist.objectives.drnet.config import DrNetConfig
from fbm_dist.training.engines.turn import turn

GOLDEN = Path(__file__).parents[3] / "golden" / "drnet_loss.json"
REGENERATE = "REGENERATE_GOLDEN"  # REGENERATE_GOLDEN=1 pytest tests/fbm_dist/objectives/drnet/test_golden.py
SETTINGS: dict[str, Any] = {"width": 0.125, "content_dim": 16, "pose_dim": 5, "skips": True, "beta": 0.1}


def curve(make_clip: Any) -> list[dict[str, float]]:
    torch.manual_seed(0)
    objective = DrNetConfig.model_validate(SETTINGS).build()
    optimizers = {
        player: torch.optim.Adam(objective.get_submodule(player).parameters(), lr=2e-3, betas=(0.5, 0.999))
        for player in objective.players
    }
    steps = []
    for step in range(5):
        row: dict[str, float] = {}
        for player, optimizer in optimizers.items():
            with turn(objective, player):
                optimizer.zero_grad()
                loss = objective(player, make_clip(4, seed=step, frames=4))
                loss.total.backward()
                optimizer.step()
            terms = {"loss": loss.total, **loss.terms}
            row |= {f"{player}/{name}": term.item() for name, term in terms.items()}
        steps.append(row)
    return steps


def test_the_loss_curve_is_the_stored_one(make_clip: Any) -> None:
    steps = curve(make_clip)
    if os.environ.get(REGENERATE):
        made_by = f"{REGENERATE}=1 pytest tests/fbm_dist/objectives/drnet/test_golden.py"
        content = {"made_by": made_by, "objective": SETTINGS, "steps": steps}
        GOLDEN.write_text(json.dumps(content, indent=1) + "\n")
    golden = json.loads(GOLDEN.read_text())
    assert golden["objective"] == SETTINGS
    assert len(golden["steps"]) == len(steps)
    for now, stored in zip(steps, golden["steps"], strict=True):
        assert now == pytest.approx(stored, rel=2e-3, abs=2e-4)
