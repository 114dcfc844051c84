"""The door of pretraining, as a user runs it: exit codes, one line for an error, two processes by the deepspeed launcher."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fbm_dist.training.monitoring.metrics import read_lines
from tests.datasets import write_dataset

ROOT = Path(__file__).parent.parent.parent
CONFIG = ROOT / "configs/pretrain/fbm_cpu.yaml"
SMALL = ["objective.width=0.05", "training.global_batch=4", "training.micro_batch=1", "training.log_every=1"]
SMALL += ["training.picture_every=3", "tracking.mlflow=false", "tracking.register_as=null", "run.folder=run"]


def environment() -> dict[str, str]:
    """Of a user's shell: nothing that this test session may have set for its own ranks."""
    ours = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_SIZE", "MASTER_ADDR", "MASTER_PORT")
    kept = {key: value for key, value in os.environ.items() if key not in ours}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    return {**kept, "PATH": path, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def door(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "launch/pretrain.py"), *arguments]
    return subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        env={**environment(), **variables},
        timeout=200,
        check=False,
    )


def deepspeed(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        "deepspeed",
        "-q",
        "--num_accelerators",
        "2",
        "--master_port",
        free_port(),
        str(ROOT / "launch/pretrain.py"),
    ]
    return subprocess.run(
        [*command, *arguments], cwd=folder, capture_output=True, text=True, env=environment(), timeout=280, check=False
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([str(CONFIG), "data.path=x", "run.folder=y", "training.step=5"], "the nearest valid key is 'training.steps'"),
        ([str(CONFIG), "data.path=x", "run.folder=y", "optimizer.lr=fast"], "optimizer.lr"),
        ([str(CONFIG), "run.folder=y"], "'data.path' is missing"),
        (["missing.yaml"], "missing.yaml: no such config file"),
    ],
)
def test_a_config_error_is_one_line_and_exit_2(arguments: list[str], told: str, tmp_path: Path) -> None:
    result = door(tmp_path, *arguments)
    assert result.returncode == 2
    assert told in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("error: ")
    assert not list(tmp_path.iterdir())


def test_a_config_error_is_told_by_rank_0_alone(tmp_path: Path) -> None:
    result = door(tmp_path, "missing.yaml", RANK="1")
    assert (result.returncode, result.stderr, result.stdout) == (2, "", "")


@pytest.mark.parametrize("name", ["pretrain", "evaluate"])
def test_a_slow_rank_0_still_gets_to_speak(name: str, tmp_path: Path) -> None:
    """The deepspeed launcher kills all ranks at the first exit that it sees; the silent ones must not be the first."""
    (tmp_path / "sitecustomize.py").write_text("import os, time\ntime.sleep(1.5 * (os.environ['RANK'] == '0'))\n")
    command = [sys.executable, str(ROOT / f"launch/{name}.py"), "missing.yaml"]
    ranks = []
    for number in "01":
        env = {**environment(), "RANK": number, "PYTHONPATH": str(tmp_path)}
        ranks.append(subprocess.Popen(command, env=env, cwd=tmp_path, stderr=subprocess.PIPE, text=True))
    while all(rank.poll() is None for rank in ranks):
        time.sleep(0.01)
    for rank in ranks:
        rank.kill()
    told = [rank.communicate()[1] for rank in ranks]
    assert told == ["error: missing.yaml: no such config file\n", ""]


def test_missing_data_is_one_line_and_exit_1(tmp_path: Path) -> None:
    result = door(tmp_path, str(CONFIG), "data.path=nowhere", *SMALL)
    assert result.returncode == 1
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "nowhere" in errors[0]
    assert "Traceback" not in result.stderr


@pytest.mark.slow  # two launches of two processes each: imports alone take 10 s
@pytest.mark.timeout(600)
@pytest.mark.distributed
def test_two_processes_by_the_launcher_then_again(tmp_path: Path) -> None:
    """ZeRO-2 over 2 processes and 2 micro-batches on real shards; the second launch goes on to more steps."""
    write_dataset(tmp_path / "data", clips=8)
    arguments = [str(CONFIG), "data.path=data", *SMALL, "training.zero_stage=2", "training.checkpoint_every=2"]
    first = deepspeed(tmp_path, *arguments, "training.steps=3")
    assert first.returncode == 0, first.stderr[-4000:]
    assert first.stdout.count("step 3/3") == 1, "rank 0 alone speaks"
    finished = json.loads((tmp_path / "run/finished.json").read_text())
    assert finished["summary"]["clips"] == 12
    assert (tmp_path / "run/encoder/encoder.safetensors").stat().st_size > 10_000
    assert [p.name for p in (tmp_path / "run/pictures").iterdir()] == ["reconstruction-00000003.png"]
    second = deepspeed(tmp_path, *arguments, "training.steps=5")
    assert second.returncode == 0, second.stderr[-4000:]
    assert "goes on from step 3 of 5" in second.stdout
    assert [line["step"] for line in read_lines(tmp_path / "run/metrics.jsonl")] == [1, 2, 3, 4, 5]
