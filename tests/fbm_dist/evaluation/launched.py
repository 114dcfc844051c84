"""An evaluation by its door, in two processes under torchrun."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]


def by_two(config: str, overrides: Sequence[str], output: Path) -> dict[str, Any]:
    """What results.json says after `launch/evaluate.py configs/evaluate/CONFIG.yaml OVERRIDES`, on CPUs and without MLflow."""
    command = [str(Path(sys.executable).with_name("torchrun")), "--standalone", "--nproc-per-node", "2"]
    command += [str(ROOT / "launch" / "evaluate.py"), str(ROOT / "configs" / "evaluate" / f"{config}.yaml"), *overrides]
    command += ["device=cpu", f"output={output}", "tracking.mlflow=false"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        command, cwd=output.parent, check=False, capture_output=True, text=True, timeout=280, env=environment
    )
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads((output / "results.json").read_text())
    assert found["facts"]["processes"] == 2
    return found
