"""Encoders of three seeds, an empty SQLite registry, and a real server: what the registry's tests begin with."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fbm_dist import registry
from fbm_dist.evaluation.config import Evaluation
from fbm_dist.evaluation.report.publish import publish
from fbm_dist.evaluation.report.results import Cell, Results, Row, Subject, Table
from fbm_dist.evaluation.report.text import write
from fbm_dist.objectives.fbm.config import FBMConfig
from fbm_dist.registry.client import connect
from fbm_dist.schema import ClipSpec, Tracking

CONFIG = FBMConfig(size=64, width=0.05)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow takes seconds to make its tables: once is enough."""
    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    connect(f"sqlite:///{path}")
    return path


@pytest.fixture
def uri(empty_database: Path, tmp_path: Path) -> str:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Encoders of three seeds."""
    out = []
    for seed in range(3):
        encoder = registry.fresh_encoder(CONFIG, seed=seed)
        out.append(tmp_path / f"run-{seed}" / "encoder")
        registry.save_encoder(encoder, CONFIG, ClipSpec(size=64), out[-1], {"data_digest": f"d{seed}"})
    return out


@pytest.fixture
def measured(tmp_path: Path) -> Callable[..., None]:
    """Publishes an evaluation of some versions as launch/evaluate.py does: `measured(uri, {version URI: linear accuracy})`."""

    def evaluate(address: str, found: dict[str, float], *, protocol: str = "probes", data: str = "shards") -> None:
        subjects = tuple(Subject(uri.removeprefix("models:/"), uri, uri, "0" * 64) for uri in found)
        rows = tuple(Row(one.name, {"motion: linear": Cell.of(found[one.uri])}) for one in subjects)
        table = Table("clip", "label motion", "accuracy, %", ("motion: linear",), rows)
        results = Results(protocol, f"{protocol} on {data}", subjects, subjects[0].name, (table,))
        output = tmp_path / "evaluation"
        tracking = Tracking(uri=address, experiment="evaluations")
        publish(Evaluation(protocol=protocol, tracking=tracking), results, write(results, output), data)

    return evaluate


@pytest.fixture
def server(empty_database: Path, tmp_path: Path) -> Iterator[str]:
    """A real `mlflow server` that keeps artifacts itself, as a cluster has it."""
    shutil.copy(empty_database, tmp_path / "server.db")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path}/server.db"]
    command += ["--artifacts-destination", str(tmp_path / "store")]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # four more processes, for nothing here
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True, env=environment
        )
    try:
        for _ in range(720):
            try:
                connect(f"http://127.0.0.1:{port}")
                break
            except ValueError:
                assert process.poll() is None, (tmp_path / "server.log").read_text()
                time.sleep(0.25)
        else:
            pytest.fail(f"the server did not come up: {(tmp_path / 'server.log').read_text()}")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)
