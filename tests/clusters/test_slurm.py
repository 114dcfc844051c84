"""infra/slurm/pretrain.sbatch under real Slurm daemons on two nodes: stopped, requeued, gone on with, finished."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clusters.runs import ROOT, arguments, assert_same, environment, losses
from tests.clusters.slurm import Slurm, two_nodes

pytestmark = [pytest.mark.distributed, pytest.mark.slow, pytest.mark.timeout(300)]
SCRIPT = ROOT / "infra/slurm/pretrain.sbatch"
ONE_PROCESS_A_NODE = ("--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=1", "--gpus-per-node=0")
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    with two_nodes(tmp_path_factory.mktemp("slurm"), environment()) as made:
        yield made


def ended(job: dict[str, str]) -> bool:
    return job["JobState"] in ENDED


def wait_for_requeue(slurm: Slurm, job: str, restarts: int, timeout: float) -> None:
    """Until the job waits for its next session, and then without the two minutes that Slurm lets a requeued job wait."""
    again = ("PENDING", str(restarts))
    found = slurm.wait(job, lambda it: ended(it) or (it["JobState"], it["Restarts"]) == again, timeout)
    assert not ended(found), found
    # not now: Slurm takes a credential of the second in which it revoked the last session's for the revoked one
    slurm.call("scontrol", "update", f"JobId={job}", "StartTime=now+1")


def test_a_signalled_job_requeues_itself_and_loses_nothing(
    slurm: Slurm, shards: Path, reference: Path, tmp_path: Path
) -> None:
    """SIGUSR1 as by `--signal=USR1@180`: the run saves at that step; the next session ends with the reference's numbers."""
    run, log = tmp_path / "run", tmp_path / "job.log"
    words = [*ONE_PROCESS_A_NODE, f"--output={log}", str(SCRIPT), *arguments(shards, run)]
    job = slurm.submit(*words, folder=ROOT)
    deadline = time.monotonic() + 120
    while len(losses(run)) < 2:
        assert time.monotonic() < deadline, log.read_text()[-3000:] if log.exists() else slurm.job(job)
        time.sleep(0.02)
    slurm.call("scancel", "--signal=USR1", job)
    wait_for_requeue(slurm, job, 1, timeout=60)
    stopped = len(losses(run))
    assert 2 <= stopped < 16, log.read_text()[-3000:]
    found = slurm.wait(job, ended, timeout=120)
    told = log.read_text()
    assert (found["JobState"], found["ExitCode"], found["Restarts"]) == ("COMPLETED", "0:0", "1"), told[-3000:]
    assert f"goes on from step {stopped} of 16" in told, "every step that was done before the signal was saved"
    assert json.loads((run / "finished.json").read_text())["summary"]["steps"] == 16
    assert_same(run, reference)


@pytest.mark.parametrize(
    ("codes", "end", "restarts"),
    [
        ((76, 75, 137, 76, 137, 76), "76:0", 5),  # a stop in between shows that the machines work
        ((1,), "1:0", 0),  # what the user has to mend is not tried again
    ],
)
def test_which_exit_codes_requeue(
    slurm: Slurm, codes: tuple[int, ...], end: str, restarts: int, tmp_path: Path
) -> None:
    """The script with a stand-in for the program that ends session after session with `codes`; rank 1 always before rank 0."""
    program = tmp_path / ".venv/bin/python"
    program.parent.mkdir(parents=True)
    lines = [f"codes=({' '.join(map(str, codes))})", "code=${codes[${SLURM_RESTART_COUNT:-0}]}"]
    lines += [
        "sleep 0.$((3 - 3 * SLURM_PROCID))",
        'echo "rank $SLURM_PROCID: $*"',
        "((code < 128)) || kill -KILL $$",
        "exit $code",
    ]
    program.write_text("\n".join(["#!/bin/bash", *lines]))
    program.chmod(0o755)
    (tmp_path / "infra").symlink_to(ROOT / "infra")
    job = slurm.submit(
        *ONE_PROCESS_A_NODE, f"--output={tmp_path}/log", str(SCRIPT), "CONFIG", "a.b=c d", folder=tmp_path
    )
    for number in range(1, restarts + 1):
        wait_for_requeue(slurm, job, number, timeout=90)
    found = slurm.wait(job, ended, timeout=90)
    told = (tmp_path / "log").read_text()
    assert (found["ExitCode"], found["Restarts"]) == (end, str(restarts)), told
    ranks = [told.count(f"rank {rank}: launch/pretrain.py CONFIG a.b=c d") for rank in (0, 1)]
    assert ranks == [restarts + 1] * 2, "a rank is not killed because another has ended"
