"""The losses of the motion-mask network over a few steps at a fixed seed, against a stored curve: what should not move must not."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from fbm_dist.objectives.motion_mask.config import MotionMaskConfig
from tests.fbm_dist.objectives.learning import step

GOLDEN = Path(__file__).parents[3] / "golden" / "motion_mask_loss.json"
REGENERATE = "REGENERATE_GOLDEN"  # REGENERATE_GOLDEN=1 pytest tests/fbm_dist/objectives/motion_mask/test_golden.py
SETTINGS: dict[str, dict[str, Any]] = {
    "alexnet": {"width": 0.1, "size": 67},
    "batch norm, low rank": {"width": 0.1, "size": 67, "norm": "batch", "low_rank": 16, "dropout": 0.0},
    "convolutions alone": {"width": 0.1, "size": 67, "norm": "batch", "fully_connected": False, "pixels": "sum"},
}


def curve(settings: dict[str, Any], make_clip: Any) -> list[dict[str, float]]:
    torch.manual_seed(0)
    objective = MotionMaskConfig.model_validate(settings).build()
    groups: dict[float, list[torch.nn.Parameter]] = {}
    for name, parameter in objective.named_parameters():
        groups.setdefault(objective.weight_decay(name, parameter), []).append(parameter)
    optimizer = torch.optim.SGD(
        [{"params": parameters, "weight_decay": 5e-4 * factor} for factor, parameters in groups.items()],
        lr=1e-4 if objective.config.pixels == "sum" else 1e-3,
        momentum=0.9,
    )
    steps = []
    for seed in range(5):
        clip = make_clip(4, 67, seed, frames=1)
        clip.mask[0] = 0.55  # don't cares
        steps.append(step(objective, optimizer, clip))
    return steps


@pytest.mark.parametrize("name", SETTINGS)
def test_the_loss_curve_is_the_stored_one(name: str, make_clip: Any) -> None:
    steps = curve(SETTINGS[name], make_clip)
    if os.environ.get(REGENERATE):
        content = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
        content["made_by"] = f"{REGENERATE}=1 pytest tests/fbm_dist/objectives/motion_mask/test_golden.py"
        content[name] = {"objective": SETTINGS[name], "steps": steps}
        GOLDEN.write_text(json.dumps(content, indent=1) + "\n")
    golden = json.loads(GOLDEN.read_text())[name]
    assert golden["objective"] == SETTINGS[name]
    assert len(golden["steps"]) == len(steps)
    for now, stored in zip(steps, golden["steps"], strict=True):
        assert now == pytest.approx(stored, rel=2e-3, abs=2e-3)
