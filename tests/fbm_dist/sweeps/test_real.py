"""Real pretrainings as trials: MLflow's parent, children and challenger; one that diverges; two processes by the deepspeed launcher."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient

from fbm_dist.config import load
from fbm_dist.registry import load_encoder
from fbm_dist.schema import Run
from fbm_dist.sweeps.conduct import conduct
from fbm_dist.sweeps.record import Record
from fbm_dist.training.monitoring.metrics import read_lines
from tests.fbm_dist.sweeps.conftest import Make

pytestmark = [pytest.mark.usefixtures("ray"), pytest.mark.distributed, pytest.mark.slow]


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("PYTEST_ADDOPTS", "")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


def kill_once_saved(folder: Path, killed: list[int]) -> None:
    """kill -9 the run in `folder` as soon as it has a checkpoint."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if list(folder.glob("checkpoints/step-*")) and len(read_lines(folder / "metrics.jsonl")) >= 3:
            for process in psutil.process_iter(["cmdline"]):
                words = process.info["cmdline"] or []
                if words[-1:] == [str(folder / "trial.yaml")] and "attendant" not in " ".join(words):
                    killed.append(process.pid)
                    with suppress(psutil.NoSuchProcess):
                        process.kill()
            return
        time.sleep(0.02)


@pytest.mark.timeout(600)
def test_real_trials_in_mlflow_and_the_best_is_the_challenger(make: Make, tmp_path: Path, address: str) -> None:
    """lr=0.001 is killed -9 on its way and goes on; lr=1e20 has no finite gradients."""
    guard = "training.guard={window: 10, rollback_after: 1, max_rollbacks: 0}"
    tracking = "tracking={mlflow: true, uri: '" + address + "', experiment: tests, register_as: tiny}"
    sweep = make(
        "{optimizer.lr: {grid: [1e-3, 1e20]}}",
        "search=grid",
        "training.steps=40",
        "training.hang_timeout=600",
        guard,
        tracking,
    )
    killed: list[int] = []
    killer = threading.Thread(target=kill_once_saved, args=(tmp_path / "sweep/trials/0000", killed))
    killer.start()
    assert conduct(sweep) == 0
    killer.join()
    good, bad = Record.open(tmp_path / "sweep", "min").trials
    log = (Path(good.folder) / "log.txt").read_text()
    assert killed, log
    assert (good.status, good.starts, good.step) == ("finished", 2, 40), log
    assert "goes on from step" in log
    assert [line["step"] for line in read_lines(Path(good.folder) / "metrics.jsonl")] == list(range(1, 41))
    assert (bad.status, bad.starts) == ("diverged", 1)
    assert "gradient not finite" in bad.reason
    client = MlflowClient(tracking_uri=address, registry_uri=address)
    parent = Record.open(tmp_path / "sweep", "min").about["tracking_run"]
    runs = client.search_runs([client.get_experiment_by_name("tests").experiment_id])
    assert len(runs) == 3
    children = {run.info.run_id: run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent}
    assert set(children) == {good.tracking_run, bad.tracking_run}
    assert children[bad.tracking_run or ""].data.tags["sweep.status"] == "diverged"
    assert children[good.tracking_run or ""].data.tags["sweep.optimizer.lr"] == "0.001"
    assert children[good.tracking_run or ""].data.metrics["loss"] == pytest.approx(good.metric)
    whole = client.get_run(parent)
    assert whole.info.status == "FINISHED"
    assert whole.data.metrics["best"] == pytest.approx(good.metric)
    assert {file.path for file in client.list_artifacts(parent)} >= {
        "table.md",
        "figure.png",
        "best.yaml",
        "sweep.yaml",
    }
    version = client.get_model_version_by_alias("tiny", "challenger")
    assert (version.version, version.run_id) in (("1", good.tracking_run), (1, good.tracking_run))
    assert {key: version.tags[key] for key in ("sweep", "sweep.metric", "sweep.optimizer.lr")} == {
        "sweep": "sweep",
        "sweep.metric": "loss",
        "sweep.optimizer.lr": "0.001",
    }
    assert len(client.search_model_versions("name='tiny'")) == 1, "trials register nothing by themselves"
    load_encoder("models:/tiny@challenger", tracking_uri=address)
    best = load(Run, tmp_path / "sweep/best.yaml")
    assert (best.optimizer.lr, best.tracking.register_as, best.run.folder) == (1e-3, "tiny", tmp_path / "sweep/best")
    assert conduct(sweep) == 0
    assert len(client.search_model_versions("name='tiny'")) == 1, "again: nothing more"


@pytest.mark.timeout(600)
def test_a_trial_of_two_processes_starts_by_the_launcher(make: Make, tmp_path: Path) -> None:
    more = ["resources={cpus: 2, processes: 2, grace: 20}", "training.engine=deepspeed", "training.steps=3", "trials=1"]
    assert conduct(make("{optimizer.lr: {uniform: [1e-3, 2e-3]}}", *more)) == 0
    (trial,) = Record.open(tmp_path / "sweep", "min").trials
    log = (Path(trial.folder) / "log.txt").read_text()
    assert trial.status == "finished", log
    assert (tmp_path / "sweep/trials/0000/version.json").read_text().count('"world_size": "2"') == 1
    assert "deepspeed --num_accelerators 2 launch/pretrain.py" in (tmp_path / "sweep/best.yaml").read_text()
