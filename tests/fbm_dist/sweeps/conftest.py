"""One local Ray for all tests of the sweeps, a tiny data set, and sweeps of a stand-in that starts at once."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from data_tools.config import load
from fbm_dist.sweeps import runs
from fbm_dist.sweeps.config import Sweep
from tests.datasets import write_dataset

STAND_IN = Path(__file__).parent / "door.py"
RUN = """
objective: {family: fbm, size: 64, width: 0.05}
data: {path: DATA, clip: {frames: 16, size: 64}, decode: pyav}
training:
  steps: 8
  global_batch: 4
  micro_batch: 2
  engine: torch
  device: cpu
  log_every: 1
  checkpoint_every: 2
  preflight: "off"
  hang_timeout: 50  # milliseconds of the stand-in's step
tracking: {mlflow: false}
"""
Make = Callable[..., Sweep]


@pytest.fixture(scope="session")
def ray() -> Iterator[Any]:
    """A local Ray of two CPUs, and nothing left of it afterwards."""
    import ray

    from data_tools.execution.cluster import connect

    with tempfile.TemporaryDirectory(prefix="r") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", folder)
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.delenv("RAY_ADDRESS", raising=False)
        connect(ray, None, 2)
        try:
            yield ray
        finally:
            ray.shutdown()


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 clips of 8 films."""
    return write_dataset(tmp_path_factory.mktemp("sweeps") / "data", clips=16, size=(64, 64))


@pytest.fixture
def make(tmp_path: Path, data: Path) -> Make:
    """A sweep of the tiny run in tmp_path/sweep: keys of its config, and dotted overrides."""

    def made(space: str, *overrides: str, output: str = "sweep") -> Sweep:
        (tmp_path / "run.yaml").write_text(RUN.replace("DATA", str(data)))
        (tmp_path / "sweep.yaml").write_text(
            f"pretrain: {tmp_path / 'run.yaml'}\nspace: {space}\nmetric: {{name: loss}}\n"
        )
        given = [f"output={tmp_path / output}", "resources.grace=5", *overrides]
        return load(Sweep, tmp_path / "sweep.yaml", given)

    return made


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials are the stand-in's runs."""
    monkeypatch.setattr(runs, "DOOR", STAND_IN)
