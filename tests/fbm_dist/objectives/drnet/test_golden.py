"""The losses of the three families over a few steps at a fixed seed, against stored curves: what should not move must not."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from fbm_dist.objectives.drnet.config import DrNetAutoencoderConfig, DrNetConfig, DrNetPredictionConfig
from fbm_dist.objectives.drnet.frames import as_frames
from fbm_dist.objectives.drnet.objective import DrNet
from fbm_dist.training.engines.turn import player_module, turn
from tests.fbm_dist.objectives.drnet.lively import enliven_

GOLDEN = Path(__file__).parents[3] / "golden"
REGENERATE = "REGENERATE_GOLDEN"  # REGENERATE_GOLDEN=1 pytest tests/fbm_dist/objectives/drnet/test_golden.py
SMALL: dict[str, Any] = {"width": 0.125, "content_dim": 16, "pose_dim": 5}
SETTINGS: dict[str, dict[str, Any]] = {
    "drnet": {**SMALL, "skips": True, "beta": 0.1},
    "drnet_autoencoder": SMALL,
    "drnet_prediction": {"frames": 7, "n_past": 3, "hidden": 32, "trunk": {"family": "drnet", **SMALL}},
}
Config = DrNetConfig | DrNetAutoencoderConfig | DrNetPredictionConfig


def curve(config: Config, make_clip: Any) -> list[dict[str, float]]:
    torch.manual_seed(0)
    objective = config.build()
    frames = config.frames
    # A trunk must not be fresh; and a fresh autoencoder makes one grey of everything, so that little shows.
    if not isinstance(objective, DrNet):
        enliven_(objective.model, as_frames(make_clip(4, frames=frames).video))
    optimizers = {
        player: torch.optim.Adam(player_module(objective, player).parameters(), lr=2e-3, betas=(0.5, 0.999))
        for player in objective.players
    }
    steps = []
    for step in range(5):
        row: dict[str, float] = {}
        for player, optimizer in optimizers.items():
            with turn(objective, player):
                optimizer.zero_grad()
                loss = objective(player, make_clip(4, seed=step, frames=frames))
                loss.total.backward()
                optimizer.step()
            terms = {"loss": loss.total, **loss.terms}
            row |= {f"{player}/{name}": term.item() for name, term in terms.items()}
        steps.append(row)
    return steps


@pytest.mark.parametrize("schema", [DrNetConfig, DrNetAutoencoderConfig, DrNetPredictionConfig])
def test_the_loss_curve_is_the_stored_one(schema: type[Config], make_clip: Any) -> None:
    family = schema.model_fields["family"].default
    path, settings = GOLDEN / f"{family}_loss.json", SETTINGS[family]
    steps = curve(schema.model_validate(settings), make_clip)
    if os.environ.get(REGENERATE):
        made_by = f"{REGENERATE}=1 pytest tests/fbm_dist/objectives/drnet/test_golden.py"
        content = {"made_by": made_by, "objective": settings, "steps": steps}
        path.write_text(json.dumps(content, indent=1) + "\n")
    golden = json.loads(path.read_text())
    assert golden["objective"] == settings
    assert len(golden["steps"]) == len(steps)
    for now, stored in zip(steps, golden["steps"], strict=True):
        assert now == pytest.approx(stored, rel=2e-3, abs=2e-4)
