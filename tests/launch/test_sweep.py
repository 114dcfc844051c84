"""The door of sweeps, as a user runs it: one line for an error, and the same command again after a signal or a kill -9."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.datasets import write_dataset

ROOT = Path(__file__).parent.parent.parent
DOOR = ROOT / "launch/sweep.py"
STAND_IN = ROOT / "tests/fbm_dist/sweeps/door.py"
RUN = """
run: {seed: 19}
objective: {family: fbm, size: 64, width: 0.05}
data: {clip: {frames: 16, size: 64}}
training: {steps: 30, global_batch: 4, micro_batch: 2, engine: torch, device: cpu, hang_timeout: 100}
tracking: {mlflow: false}
"""
SWEEP = """
pretrain: run.yaml
space: {optimizer.lr: {grid: [1e-3, 1e-2, 1e-1]}}
search: grid
metric: {name: loss}
resources: {grace: 60}
output: out
"""
# The door with the stand-in's runs in place of pretrainings.
WITH_STAND_IN = f"""
import runpy, sys
from pathlib import Path
from fbm_dist.sweeps import runs
runs.DOOR = Path({str(STAND_IN)!r})
sys.argv = [{str(DOOR)!r}, *sys.argv[1:]]
runpy.run_path({str(DOOR)!r}, run_name="__main__")
"""
ARGUMENTS = ["sweep.yaml", "data.path=data"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "run.yaml").write_text(RUN)
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    return tmp_path


def environment() -> dict[str, str]:
    ours = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "RAY_ADDRESS", "MLFLOW_TRACKING_URI")
    kept = {key: value for key, value in os.environ.items() if key not in ours}
    return {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}


def started(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    output = (folder / "said.txt").open("a")
    command = [sys.executable, "-c", WITH_STAND_IN, *ARGUMENTS, *arguments]
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment(),
        stdout=output,
        stderr=output,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a test run in the background ignores it
    )


def wait_for(true: Callable[[], bool], seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def steps(folder: Path, number: int) -> list[int]:
    path = folder / f"out/trials/{number:04d}/metrics.jsonl"
    return [json.loads(line)["step"] for line in path.read_text().splitlines()] if path.exists() else []


def of_trials(folder: Path) -> list[int]:
    """Processes that work in the sweep's folder, the sweep itself left out."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = " ".join(process.info["cmdline"] or [])
        if str(folder / "out/trials") in words and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process.pid)
    return found


def trials(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "out/results.json").read_text())["trials"]
    return found


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["missing.yaml"], "missing.yaml: no such config file"),
        ([*ARGUMENTS, "trails=3"], "unknown key 'trails'; the nearest valid key is 'trials'"),
        (["sweep.yaml"], "'data.path' is missing"),
        ([*ARGUMENTS, "training.step=3"], "run.yaml: unknown key 'training.step'; the nearest valid key is 'training.steps'"),
        ([*ARGUMENTS, "metric.name=probe/all_knn"], "the run has no probe section; give one, e.g. probe.every=100"),
    ],
)  # fmt: skip
def test_a_config_error_is_one_line_and_exit_2(arguments: list[str], told: str, folder: Path) -> None:
    command = [sys.executable, str(DOOR), *arguments]
    result = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=120, check=False
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")
    assert told in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (folder / "out").exists()


@pytest.mark.slow  # two starts of Ray
@pytest.mark.distributed
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_and_started_again_it_goes_on(number: signal.Signals, folder: Path) -> None:
    """No process is left behind, each step is done once, and what was finished is not begun again."""
    write_dataset(folder / "data", clips=4, size=(64, 64))
    sweep = started(folder)
    try:
        wait_for(lambda: len(steps(folder, 2)) > 3 and (folder / "out/trials/0000/finished.json").exists())
        sweep.send_signal(number)
        code = sweep.wait(150)
    finally:
        sweep.kill()
    assert code == (-9 if number == signal.SIGKILL else 75), (folder / "said.txt").read_text()
    wait_for(lambda: not of_trials(folder), 90)
    log = (folder / "out/trials/0002/log.txt").read_text()
    assert "stopped by a signal" in log, "it was asked, not killed"
    before = steps(folder, 2)
    assert before == list(range(1, 6))
    again = started(folder)
    try:
        assert again.wait(200) == 0, (folder / "said.txt").read_text()
    finally:
        again.kill()
    assert [trial["status"] for trial in trials(folder)] == ["finished"] * 3
    assert steps(folder, 2) == list(range(1, 31))
    assert f"goes on from step {before[-1]}" in (folder / "out/trials/0002/log.txt").read_text()
    assert len((folder / "out/trials/0000/starts.txt").read_text().splitlines()) <= 2
    said = (folder / "said.txt").read_text()
    assert "best: trial 0001, loss 0.0333333 with lr=0.01" in said
    assert "Traceback" not in said
    if number == signal.SIGTERM:
        assert "the same command goes on" in said
    assert not of_trials(folder)


@pytest.mark.slow
@pytest.mark.distributed
def test_two_sweeps_do_not_share_a_folder(folder: Path) -> None:
    write_dataset(folder / "data", clips=4, size=(64, 64))
    sweep = started(folder)
    try:
        wait_for((folder / "out/results.json").exists)
        command = [sys.executable, str(DOOR), *ARGUMENTS]
        other = subprocess.run(
            command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=120, check=False
        )
        assert other.returncode == 1
        assert "another sweep is at work there" in other.stderr
    finally:
        sweep.send_signal(signal.SIGINT)
        assert sweep.wait(60) == 130
    assert not of_trials(folder)
