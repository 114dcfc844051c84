"""torchrun starts the same file: the shared run ends as under every other launcher (test_hostfile.py, test_slurm.py compare)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.clusters.runs import STEPS, losses


@pytest.mark.distributed
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_torchrun_trains_to_the_end_as_one_run(reference: Path) -> None:
    """Two processes, not two runs: each step has one line and read the whole global batch once."""
    lines = losses(reference)
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert [line["epoch"] for line in lines] == [4 * step / 8 for step in range(1, STEPS + 1)]
    summary = json.loads((reference / "finished.json").read_text())["summary"]
    assert (summary["steps"], summary["clips"]) == (STEPS, 4 * STEPS)
    assert json.loads((reference / "version.json").read_text())["world_size"] == "2"
