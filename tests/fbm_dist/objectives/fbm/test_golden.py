"""The losses of FBM and the autoencoder over a few steps at a fixed seed, against stored curves: what should not move must not."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from fbm_dist.objectives.fbm.config import AutoencoderConfig, FBMConfig
from tests.fbm_dist.objectives.learning import step

GOLDEN = Path(__file__).parents[3] / "golden"
REGENERATE = "REGENERATE_GOLDEN"  # REGENERATE_GOLDEN=1 pytest tests/fbm_dist/objectives/fbm/test_golden.py
SETTINGS: dict[str, dict[str, Any]] = {
    "fbm": {"width": 0.125, "size": 64, "coherency": {"weight": 0.1, "margin": 0.5}},
    "autoencoder": {"width": 0.125, "size": 64},
}


def curve(config: FBMConfig | AutoencoderConfig, make_clip: Any) -> list[dict[str, float]]:
    torch.manual_seed(0)
    objective = config.build()
    groups: dict[float, list[torch.nn.Parameter]] = {}
    for name, parameter in objective.named_parameters():
        groups.setdefault(objective.weight_decay(name, parameter), []).append(parameter)
    # Small steps of SGD: Adam's make last bits, which differ from one kind of CPU to another, larger than the tolerance below.
    optimizer = torch.optim.SGD(
        [{"params": parameters, "weight_decay": 1e-3 * factor} for factor, parameters in groups.items()],
        lr=3e-4,
        momentum=0.9,
    )
    return [step(objective, optimizer, make_clip(4, seed=seed)) for seed in range(5)]


@pytest.mark.parametrize("schema", [FBMConfig, AutoencoderConfig])
def test_the_loss_curve_is_the_stored_one(schema: type[FBMConfig | AutoencoderConfig], make_clip: Any) -> None:
    family = schema.model_fields["family"].default
    path, settings = GOLDEN / f"{family}_loss.json", SETTINGS[family]
    steps = curve(schema.model_validate(settings), make_clip)
    if os.environ.get(REGENERATE):
        made_by = f"{REGENERATE}=1 pytest tests/fbm_dist/objectives/fbm/test_golden.py"
        content = {"made_by": made_by, "objective": settings, "steps": steps}
        path.write_text(json.dumps(content, indent=1) + "\n")
    golden = json.loads(path.read_text())
    assert golden["objective"] == settings
    assert len(golden["steps"]) == len(steps)
    for now, stored in zip(steps, golden["steps"], strict=True):
        assert now == pytest.approx(stored, rel=2e-3, abs=2e-4)
