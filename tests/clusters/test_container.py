"""infra/docker/entry.sh as two pods run it: one is told to go, both save; made anew they end with the reference's numbers."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.clusters.runs import ROOT, arguments, assert_same, environment, losses

pytestmark = [pytest.mark.distributed, pytest.mark.slow, pytest.mark.timeout(300)]


def pods(shards: Path, run: Path, log: Path) -> list[subprocess.Popen[bytes]]:
    """Two pods of a JobSet, a process each."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    made = []
    for index in "01":
        variables = {"NODES": "2", "PROCESSES": "1", "JOB_COMPLETION_INDEX": index}
        env = environment(**variables, MASTER_ADDR="127.0.0.1", MASTER_PORT=port, PATIENCE="20")
        command = ["bash", str(ROOT / "infra/docker/entry.sh"), "pretrain", *arguments(shards, run)]
        with log.open("ab") as file:
            made.append(subprocess.Popen(command, env=env, stdout=file, stderr=file, start_new_session=True))
    return made


def end(made: list[subprocess.Popen[bytes]], timeout: float = 120) -> list[int]:
    """Their exit codes; what does not end is killed."""
    try:
        return [pod.wait(timeout) for pod in made]
    finally:
        for pod in made:
            if pod.poll() is None:
                os.killpg(pod.pid, signal.SIGKILL)


def wait_for_steps(run: Path, number: int, made: list[subprocess.Popen[bytes]], log: Path) -> None:
    deadline = time.monotonic() + 120
    while len(losses(run)) < number:
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        assert all(pod.poll() is None for pod in made), log.read_text()[-3000:]
        time.sleep(0.02)


def test_an_evicted_pod_loses_nothing(shards: Path, reference: Path, tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    made = pods(shards, run, log)
    try:
        wait_for_steps(run, 2, made, log)
        made[1].terminate()  # of one pod the first process alone, as the kubelet does it
    finally:
        codes = end(made)
    assert codes == [75, 75], log.read_text()[-3000:]
    stopped = len(losses(run))
    assert 2 <= stopped < 16
    assert end(pods(shards, run, log)) == [0, 0], log.read_text()[-3000:]
    assert f"goes on from step {stopped} of 16" in log.read_text()
    assert_same(run, reference)


def test_a_rank_that_is_killed_ends_its_pod(shards: Path, tmp_path: Path) -> None:
    """By the kernel, for want of memory, say: the pod fails, by which the JobSet makes all anew; the other ends, too."""
    run, log = tmp_path / "run", tmp_path / "log"
    made = pods(shards, run, log)
    try:
        wait_for_steps(run, 1, made, log)
        ranks = [
            child for child in psutil.Process(made[1].pid).children() if "pretrain.py" in " ".join(child.cmdline())
        ]
        assert len(ranks) == 1
        ranks[0].kill()
        assert made[1].wait(30) == 137
    finally:
        codes = end(made)
    assert codes[0] not in (0, 2), "neither done nor a config error, which would end the JobSet"
