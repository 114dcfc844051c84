"""pretrain: one call from a config to a registered encoder, and again; what it writes down, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow.tracking import MlflowClient
from safetensors.torch import load_file

from fbm_dist.config import load
from fbm_dist.registry import load_encoder
from fbm_dist.run import pretrain
from fbm_dist.schema import Run
from fbm_dist.training.monitoring.metrics import read_lines
from fbm_dist.training.monitoring.tracking import unsent
from tests.datasets import write_dataset
from tests.grouped import write_clips
from tests.runs import make_run


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data"), clips=8)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


def tiny(folder: Path, shards: Path, **sections: Any) -> Run:
    """Two steps of a very narrow FBM in this process."""
    given: dict[str, Any] = {
        "objective": {"family": "fbm", "size": 64, "width": 0.05},
        "data": {"path": str(shards), "clip": {"size": 64, "mirror": 0.5}},
        "training": {
            "engine": "torch",
            "steps": 2,
            "global_batch": 4,
            "micro_batch": 4,
            "picture_every": 1,
            "preflight": "off",
        },
    }
    for name, values in sections.items():
        given[name] = {**given.get(name, {}), **values} if isinstance(values, dict) else values
    return make_run(folder, **given)


def test_from_data_to_a_registered_encoder_and_again(
    data: Path, address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracking = {"mlflow": True, "uri": address, "register_as": "tiny", "experiment": "tests"}
    run = tiny(tmp_path / "run", data, tracking=tracking)
    reports: list[dict[str, float]] = []
    summary = pretrain(run, reports.append)
    assert summary.model_uri == "models:/tiny/1"
    assert [report["step"] for report in reports] == [1.0, 2.0]
    folder = tmp_path / "run"
    assert load(Run, folder / "config.yaml") == run
    version = json.loads((folder / "version.json").read_text())
    assert version["data.digest"] == summary.data_digest
    assert version["packages"]["torch"] == torch.__version__.partition("+")[0]
    client = MlflowClient(address)
    tracked = client.get_run(str(summary.tracking_run))
    assert tracked.data.params["objective.width"] == "0.05"
    assert tracked.data.params["data.digest"] == summary.data_digest
    assert tracked.data.metrics["loss"] == pytest.approx(summary.metrics["loss"])
    assert tracked.info.status == "FINISHED"
    files = {f.path for f in client.list_artifacts(tracked.info.run_id)}
    assert {"config.yaml", "version.json", "pictures"} <= files
    assert (
        len(client.list_artifacts(tracked.info.run_id, "pictures")) == len(list((folder / "pictures").iterdir())) == 2
    )
    clip = torch.zeros(1, 3, 16, 64, 64)
    by_name, by_folder = load_encoder("models:/tiny@champion", tracking_uri=address), load_encoder(folder)
    for name, features in by_name(clip).items():
        assert torch.equal(features, by_folder(clip)[name])
    # Again: nothing to do, and nothing done.
    capsys.readouterr()
    assert pretrain(run, lambda metrics: pytest.fail("trained again")) == summary
    assert "finished after 2 steps; nothing to do" in capsys.readouterr().out
    assert len(client.search_model_versions("name='tiny'")) == 1


def test_a_longer_run_goes_on_and_says_what_changed(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pretrain(tiny(tmp_path, data))
    longer = tiny(tmp_path, data, training={"steps": 3}, optimizer={"lr": 2e-3})
    assert pretrain(longer).steps == 3
    told = capsys.readouterr().out
    assert "training.steps was 2, is 3 from here on" in told
    assert "optimizer.lr was 0.001, is 0.002 from here on" in told
    assert "goes on from step 2 of 3" in told
    assert load(Run, tmp_path / "config.0.yaml").training.steps == 2
    assert [line["step"] for line in read_lines(tmp_path / "metrics.jsonl")] == [1, 2, 3]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"data": {"clip": {"size": 128}}}, r"data.clip.size is 128, but the objective's size is 64"),
        ({"data": {"path": "nowhere", "clip": {"size": 64}}}, r"nowhere"),
        ({"training": {"micro_batch": 3}}, r"global_batch=4 is not a multiple of training.micro_batch=3"),
        ({"data": {"clip": {"size": 64}, "filter": {"split": "no-such"}}}, r"split"),
        ({"run": {"folder": __file__}}, r"test_run\.py is a file; give another folder"),
        (
            {"validation": {"hold_out": 0.0, "filter": {"split": "no-such"}}},
            r"validation\.filter\.split: the data set has no 'no-such'",
        ),
        ({"players": {"critic": {}}}, r"players\.critic: FBM\w* has no such player; it has model"),
    ],
)
def test_bad_input_is_one_line(change: dict[str, Any], told: str, data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=told) as caught:
        pretrain(tiny(tmp_path, data, **change))
    assert "\n" not in str(caught.value)


def test_another_objective_in_a_finished_folder_is_refused(data: Path, tmp_path: Path) -> None:
    pretrain(tiny(tmp_path, data))
    with pytest.raises(ValueError, match=r"holds a finished run with objective\.width=0\.05, not 0\.06"):
        pretrain(tiny(tmp_path, data, objective={"width": 0.06}))


def test_a_refused_run_leaves_the_folder_and_mlflow_as_they_were(data: Path, address: str, tmp_path: Path) -> None:
    """Resuming by mistake with another model, or without its data, must not rewrite what the folder says about its run."""
    tracking = {"mlflow": True, "uri": address, "experiment": "refused"}
    summary = pretrain(tiny(tmp_path / "run", data, tracking=tracking))
    (tmp_path / "run" / "finished.json").unlink()  # as if it had been killed
    files = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    for change in ({"objective": {"width": 0.06}}, {"data": {"path": "nowhere", "clip": {"size": 64}}}):
        with pytest.raises(ValueError, match=r"0\.06|nowhere"):
            pretrain(tiny(tmp_path / "run", data, tracking=tracking, **change))
        assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == files
    with pytest.raises(ValueError, match="nowhere"):
        pretrain(tiny(tmp_path / "new", Path("nowhere"), tracking=tracking))
    assert not (tmp_path / "new").exists()
    client = MlflowClient(address)
    experiment = client.get_experiment_by_name("refused")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert [(run.info.run_id, run.info.status) for run in runs] == [(summary.tracking_run, "FINISHED")]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_server_that_is_down_at_the_start_ends_the_run_there(data: Path, tmp_path: Path) -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(ValueError, match=f"MLflow server {uri} does not answer") as caught:
        pretrain(tiny(tmp_path, data, tracking={"mlflow": True, "uri": uri}))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "metrics.jsonl").exists()


class Server:
    """A real MLflow server on a port of this machine."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--port", str(self.port), "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{self.folder}/server.db"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, cwd=self.folder)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=1)
                return
            except (urllib.error.URLError, OSError):
                assert self.process.poll() is None, (self.folder / "server.log").read_text()
                time.sleep(0.2)
        raise AssertionError("the MLflow server did not start in time")

    def stop(self) -> None:
        if self.process:
            os.killpg(self.process.pid, signal.SIGKILL)  # with its workers
            self.process.wait()
            self.process = None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "server").mkdir()
    server = Server(tmp_path / "server")
    server.start()
    yield server
    server.stop()


@pytest.mark.slow  # starts a real MLflow server twice, 10 s each
def test_a_server_that_goes_away_does_not_stop_training(server: Server, data: Path, tmp_path: Path) -> None:
    run = tiny(tmp_path / "run", data, training={"steps": 6}, tracking={"mlflow": True, "uri": server.uri})

    def unplug(metrics: dict[str, float]) -> None:
        if metrics["step"] == 3:
            server.stop()

    summary = pretrain(run, unplug)
    assert summary.steps == 6
    assert unsent(tmp_path / "run") > 0
    server.start()
    pretrain(run)  # finished: sends what waited
    assert unsent(tmp_path / "run") == 0
    client = MlflowClient(server.uri)
    history = client.get_metric_history(str(summary.tracking_run), "loss")
    assert sorted(metric.step for metric in history) == [1, 2, 3, 4, 5, 6]
    assert len(client.list_artifacts(str(summary.tracking_run), "pictures")) == 6


def test_validation_stops_early_and_keeps_the_best_average(data: Path, address: str, tmp_path: Path) -> None:
    """No validation can improve by a million: the first one is the best, the third ends the run; the average's weights are kept."""
    validation = {"every": 1, "hold_out": 0.5, "patience": 2, "min_improvement": 1e6, "keep": "best"}
    training = {"steps": 9, "ema_decay": 0.9, "picture_every": 0, "keep_checkpoints": 1}
    run = tiny(tmp_path / "run", data, training=training, validation=validation)
    summary = pretrain(run)
    assert (summary.steps, summary.stopped_early, summary.best_step) == (3, True, 1)
    lines = read_lines(tmp_path / "run/metrics.jsonl")
    assert all("validation/loss" in line for line in lines)
    held = {line["validation/loss"] for line in lines}
    assert len(held) == 3  # the weights move
    checkpoints = tmp_path / "run/checkpoints"
    assert sorted(p.name for p in checkpoints.iterdir()) == ["step-00000001", "step-00000003"]
    kept = load_file(tmp_path / "run/encoder/encoder.safetensors")
    averaged = load_file(checkpoints / "step-00000001/ema.safetensors")
    plain = load_file(checkpoints / "step-00000001/objective.safetensors")
    shared = {name: next(full for full in averaged if full.endswith(name)) for name in kept if name.endswith("weight")}
    assert shared
    assert all(torch.equal(kept[name], averaged[full]) for name, full in shared.items())
    assert any(not torch.equal(averaged[full], plain[full]) for full in shared.values())
    assert pretrain(run).stopped_early  # finished: nothing goes on


def test_a_run_begins_with_a_registered_encoder(
    data: Path, address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracking = {"mlflow": True, "uri": address, "register_as": "first", "experiment": "tests"}
    pretrain(tiny(tmp_path / "first", data, tracking=tracking))
    capsys.readouterr()
    second = tiny(
        tmp_path / "second",
        data,
        run={"seed": 7},
        init_from="models:/first/1",
        tracking={**tracking, "register_as": None},
    )
    pretrain(second)
    told = capsys.readouterr().out
    assert "init_from models:/first/1: " in told
    assert "not loaded: " in told  # an encoder has no decoder
    version = json.loads((tmp_path / "second/version.json").read_text())
    assert version["init_from.source"] == "models:/first/1"
    assert len(version["init_from.sha256"]) == 64
    longer = second.model_copy(update={"training": second.training.model_copy(update={"steps": 3})})
    pretrain(longer)  # goes on: the checkpoint's weights count, not the first ones
    assert "init_from" not in capsys.readouterr().out


def test_preflight_alone_trains_nothing(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = pretrain(tiny(tmp_path / "run", data, training={"preflight": "only"}))
    assert summary.steps == 0
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["preflight.json"]
    assert "all-reduce" in capsys.readouterr().out


def test_a_probe_watches_the_features(data: Path, tmp_path: Path) -> None:
    more = write_clips(tmp_path / "labelled", [f"group-{i % 6}" for i in range(12)], codec="vp9", frames=16)
    pretrain(tiny(tmp_path / "run", data, probe={"every": 2, "path": str(more), "label": "colour", "neighbours": 3}))
    line = read_lines(tmp_path / "run/metrics.jsonl")[-1]
    assert {"probe/motion_knn", "probe/foreground_knn", "probe/all_knn", "probe/chance"} <= set(line)
    assert all(0 <= value <= 1 for name, value in line.items() if name.startswith("probe/"))


def test_a_lost_run_folder_comes_back_from_the_mirror(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training = {"checkpoint_mirror": f"file://{tmp_path}/store", "checkpoint_every": 1, "picture_every": 0}
    pretrain(tiny(tmp_path / "run", data, training=training))
    shutil.rmtree(tmp_path / "run")
    capsys.readouterr()
    assert pretrain(tiny(tmp_path / "run", data, training={**training, "steps": 3})).steps == 3
    told = capsys.readouterr().out
    assert "fetched from the mirror" in told
    assert "goes on from step 2 of 3" in told
