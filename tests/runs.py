"""make_run: a small `Run` config for the trainer's tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fbm_dist.schema import Run


def make_run(folder: Path, **sections: Any) -> Run:
    """A run in `folder` of 8 clips a step on the CPU; `sections` (training, optimizer, schedule, tracking ...) change it."""
    tree: dict[str, Any] = {
        "run": {"folder": str(folder)},
        "data": {"path": "nowhere"},
        "optimizer": {"lr": 1e-3},
        "training": {
            "steps": 6,
            "global_batch": 8,
            "micro_batch": 2,
            "device": "cpu",
            "threads": 1,
            "log_every": 1,
            "checkpoint_every": 100,
            "picture_every": 0,
        },
        "tracking": {"mlflow": False},
    }
    for name, values in sections.items():
        tree[name] = {**tree.get(name, {}), **values} if isinstance(values, dict) else values
    return Run.model_validate_json(json.dumps(tree))
