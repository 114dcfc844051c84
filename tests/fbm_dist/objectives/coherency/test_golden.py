"""The losses of the four kinds over a few steps at a fixed seed, against stored curves: what should not move must not."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fbm_dist.objectives.coherency.config import CoherencyConfig
from tests.fbm_dist.objectives.learning import step

GOLDEN = Path(__file__).parents[3] / "golden" / "coherency_loss.json"
REGENERATE = "REGENERATE_GOLDEN"
MADE_BY = f"{REGENERATE}=1 pytest tests/fbm_dist/objectives/coherency/test_golden.py"
SETTINGS: dict[str, Any] = {"size": 64, "width": 0.1, "initialization": "he"}
LOSSES: dict[str, dict[str, Any]] = {
    "siamese": {"kind": "siamese"},
    "quadruplet": {"kind": "quadruplet"},
    "quadruplet_of_the_authors": {"kind": "quadruplet", "distance": "squared", "hinge": "batch"},
    "sfa": {"kind": "sfa"},
    "triplet": {"kind": "triplet"},
}


def curve(name: str, make_clip: Any) -> list[dict[str, float]]:
    torch.manual_seed(0)
    config = CoherencyConfig.model_validate(SETTINGS | {"loss": LOSSES[name]})
    objective = config.build()
    optimizer = torch.optim.SGD(objective.parameters(), lr=1e-2, momentum=0.9)
    steps = []
    for seed in range(4):
        clip = replace(make_clip(3, seed=seed, frames=len(config.loss.roles) + config.loss.strangers), mask=None)
        if config.loss.strangers:
            clip.video[:, :, -1] = make_clip(3, seed=seed + 100, frames=1).video[:, :, 0]
        steps.append(step(objective, optimizer, clip))
    return steps


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_curve_is_the_stored_one(name: str, make_clip: Any) -> None:
    steps = curve(name, make_clip)
    if os.environ.get(REGENERATE):
        content = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
        content = {"made_by": MADE_BY, "objective": SETTINGS, "curves": content.get("curves", {})}
        content["curves"][name] = {"loss": LOSSES[name], "steps": steps}
        GOLDEN.write_text(json.dumps(content, indent=1) + "\n")
    golden = json.loads(GOLDEN.read_text())
    assert golden["objective"] == SETTINGS
    assert set(golden["curves"]) <= set(LOSSES)
    stored = golden["curves"][name]
    assert stored["loss"] == LOSSES[name]
    assert len(stored["steps"]) == len(steps)
    for now, then in zip(steps, stored["steps"], strict=True):
        assert now == pytest.approx(then, rel=2e-3, abs=2e-4)
