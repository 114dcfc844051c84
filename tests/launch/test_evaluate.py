"""The door of evaluation: what it says when a config or an encoder cannot be used, and its exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.datasets import write_dataset

ROOT = Path(__file__).parent.parent.parent
CONFIG = str(ROOT / "configs" / "evaluate" / "action_recognition.yaml")


def door(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run from a checkout, in another working folder, as a user does."""
    command = [sys.executable, str(ROOT / "launch" / "evaluate.py"), *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    return subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env=environment, check=False, timeout=200
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.yaml"], "nowhere.yaml: no such config file"),
        ([CONFIG, "encoder=random"], "'data.path' is missing"),
        ([CONFIG, "encoder=random", "data.path=x", "linear_prob.c=1"], "nearest valid key is 'linear_probe'"),
        ([CONFIG, "encoder=random", "data.path=x", "seeds=zero"], "seeds"),
    ],
)
def test_config_errors_are_one_line_and_exit_2(arguments: list[str], said: str, tmp_path: Path) -> None:
    result = door(*arguments, folder=tmp_path)
    assert result.returncode == 2
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.slow  # a new interpreter imports torch and MLflow, twice
def test_other_errors_are_one_line_and_exit_1(tmp_path: Path) -> None:
    result = door(CONFIG, "encoder=random", "data.path=nowhere", folder=tmp_path)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("error: nowhere: no such folder")
    assert result.stderr.count("\n") == 1
    write_dataset(tmp_path / "shards", clips=4, masks=False, truth=False)
    result = door(CONFIG, "encoder=models:/x@champion", "data.path=shards", "label=motion", folder=tmp_path)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("error: no MLflow database at sqlite:")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "mlflow.db").exists()
