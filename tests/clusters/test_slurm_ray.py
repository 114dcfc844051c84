"""infra/slurm/prepare.sbatch and sweep.sbatch under real Slurm on two nodes, with a real Ray cluster inside the job."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from data_tools.building.pipeline import prepare
from tests.clusters.runs import ROOT, environment
from tests.clusters.slurm import Slurm, two_nodes
from tests.clusters.test_slurm import ended, wait_for_requeue
from tests.films import files, film, ledger, settings

pytestmark = [pytest.mark.distributed, pytest.mark.slow, pytest.mark.timeout(600)]
TWO_NODES = ("--nodes=2", "--gpus-per-node=0")
FILMS = 6
# In place of launch/sweep.py: what it is given and finds, once on each node; the first session waits to be told to stop.
STAND_IN = """
import json, os, signal, socket, sys, time
import ray

session = int(os.environ.get("SLURM_RESTART_COUNT", 0))
ray.init(address="auto", log_to_driver=False, logging_level="ERROR")

@ray.remote(num_cpus=1)
def host():
    time.sleep(1)
    return socket.gethostname()

asked = [host.options(scheduling_strategy="SPREAD").remote() for _ in range(2)]
told = {"words": sys.argv[1:], "hosts": sorted(set(ray.get(asked))), "auth": os.environ["RAY_AUTH_MODE"]}
heard = []
signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
with open(f"session-{session}.new", "w") as file:
    json.dump(told, file)
os.rename(f"session-{session}.new", f"session-{session}.json")
while session == 0 and not heard:
    time.sleep(0.05)
sys.exit(75 if heard else 0)
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    small = environment(RAY_OBJECT_STORE_BYTES=str(80 << 20))
    ray = [name for name in small if name.startswith("RAY_") and name != "RAY_OBJECT_STORE_BYTES"]
    with two_nodes(tmp_path_factory.mktemp("slurm"), {n: value for n, value in small.items() if n not in ray}) as made:
        yield made


def wait_until(true: Callable[[], bool], why: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, why()
        time.sleep(0.05)


def nothing_is_left_of(job: str, slurm: Slurm) -> bool:
    """No process of Ray, and nothing in /tmp."""
    running = [
        words for node in slurm.nodes for words in node.processes() if "raylet" in words or "gcs_server" in words
    ]
    return not running and not Path(f"/tmp/ray-{job}").exists() and not list(Path("/tmp").glob(f"ray-{job}-*.log"))


def test_prepare_over_two_nodes_is_stopped_goes_on_and_makes_the_same_bytes(slurm: Slurm, tmp_path: Path) -> None:
    for number in range(FILMS):
        film(tmp_path / f"films/{number}.mp4", (2 * number, 24), (2 * number + 1, 24))
    more = ("masks.kind=unlc", "masks.working_side=72")
    prepare(settings(tmp_path / "films", tmp_path / "here", *more))
    log, output = tmp_path / "job.log", tmp_path / "shards"
    given = [f"input={tmp_path}/films", f"output={output}", "short_side=64", *more]
    script = str(ROOT / "infra/slurm/prepare.sbatch")
    job = slurm.submit(*TWO_NODES, f"--output={log}", script, *given, folder=ROOT)

    def said() -> str:
        return log.read_text()[-3000:] if log.exists() else str(slurm.job(job))

    def outcomes() -> int:
        """Films that are done, of an unfinished `prepare`."""
        return len(list(output.glob("staging/**/*.json"))) if output.exists() else 0

    wait_until(lambda: outcomes() > 1, said)
    slurm.call("scancel", "--batch", "--signal=USR1", job)
    wait_for_requeue(slurm, job, 1, timeout=120)
    assert not (output / "dataset.json").exists(), "stopped in the middle"
    assert nothing_is_left_of(job, slurm)
    found = slurm.wait(job, ended, timeout=300)
    assert (found["JobState"], found["ExitCode"], found["Restarts"]) == ("COMPLETED", "0:0", "1"), said()
    assert said().count("Ray: 2 of 2 nodes, 2 CPUs, 0 GPUs") == 2
    assert len(ledger(output)) == FILMS
    ours, wanted = files(output), files(tmp_path / "here")
    tars = [name for name in wanted if name.endswith((".tar", ".idx"))]
    assert tars
    assert {name: ours[name] for name in ours if name.endswith((".tar", ".idx"))} == {n: wanted[n] for n in tars}
    assert nothing_is_left_of(job, slurm)


def test_sweep_gets_the_cluster_is_told_to_stop_and_goes_on(slurm: Slurm, tmp_path: Path) -> None:
    (tmp_path / "launch").mkdir()
    (tmp_path / "launch/sweep.py").write_text(STAND_IN)
    (tmp_path / "infra").symlink_to(ROOT / "infra")
    log = tmp_path / "job.log"
    script = str(ROOT / "infra/slurm/sweep.sbatch")
    job = slurm.submit(*TWO_NODES, f"--output={log}", script, "CONFIG", "a.b=c d", folder=tmp_path)
    wait_until((tmp_path / "session-0.json").exists, lambda: log.read_text() if log.exists() else slurm.job(job))
    slurm.call("scancel", "--batch", "--signal=USR1", job)
    wait_for_requeue(slurm, job, 1, timeout=120)
    found = slurm.wait(job, ended, timeout=300)
    assert (found["JobState"], found["ExitCode"]) == ("COMPLETED", "0:0"), log.read_text()[-3000:]
    assert f"session 0 of job {job} ended with code 75, as it was told to" in log.read_text()
    for session in (0, 1):
        told = json.loads((tmp_path / f"session-{session}.json").read_text())
        assert told["words"] == ["CONFIG", "a.b=c d", "ray.address=auto"]
        assert told["hosts"] == ["node1", "node2"]
        assert told["auth"] == "token"


@pytest.mark.skipif(not (ROOT / "launch/sweep.py").exists(), reason="launch/sweep.py is not there yet")
def test_a_real_sweep_runs_its_trials_on_both_nodes(slurm: Slurm, shards: Path, tmp_path: Path) -> None:
    """Two trials of three steps, a core each."""
    sweep = {"pretrain": str(ROOT / "configs/pretrain/fbm_cpu.yaml"), "search": "grid", "metric": {"name": "loss"}}
    sweep |= {"space": {"optimizer.lr": {"grid": [0.001, 0.002]}}, "output": str(tmp_path / "sweep")}
    sweep |= {"objective": {"width": 0.05}, "tracking": {"uri": f"sqlite:///{tmp_path}/mlflow.db"}}
    sweep["training"] = {"steps": 3, "global_batch": 4, "micro_batch": 4, "log_every": 1, "picture_every": 0}
    (tmp_path / "sweep.yaml").write_text(json.dumps(sweep))  # JSON is YAML
    log = tmp_path / "job.log"
    script = str(ROOT / "infra/slurm/sweep.sbatch")
    words = (f"{tmp_path}/sweep.yaml", f"data.path={shards}")
    job = slurm.submit(*TWO_NODES, f"--output={log}", script, *words, folder=ROOT)
    found = slurm.wait(job, ended, timeout=300)
    assert (found["JobState"], found["ExitCode"]) == ("COMPLETED", "0:0"), log.read_text()[-3000:]
    finished = sorted(tmp_path.glob("sweep/**/finished.json"))
    assert len(finished) == 2
    assert all(json.loads(path.read_text())["summary"]["steps"] == 3 for path in finished)


def test_a_command_that_cannot_be_done_ends_the_job_with_its_code(slurm: Slurm, tmp_path: Path) -> None:
    log = tmp_path / "job.log"
    script = str(ROOT / "infra/slurm/prepare.sbatch")
    job = slurm.submit("--nodes=1", f"--output={log}", script, "input=nowhere", "outputs=x", folder=ROOT)
    found = slurm.wait(job, ended, timeout=120)
    assert (found["JobState"], found["ExitCode"], found["Restarts"]) == ("FAILED", "2:0", "0"), log.read_text()
    assert "error: " in log.read_text()


def test_outside_a_job_it_says_so(tmp_path: Path) -> None:
    assert "SLURM_JOB_ID" not in os.environ
    ran = subprocess.run(
        ["bash", str(ROOT / "infra/ray/cluster.sh"), "true"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert ran.returncode == 1
    assert "runs inside a Slurm job" in ran.stderr
