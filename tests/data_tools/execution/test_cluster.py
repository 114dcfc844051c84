"""A real Ray cluster of two nodes: jobs end once, whatever workers and nodes do, and as they do locally."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster

from data_tools.building.pipeline import prepare
from data_tools.execution.cluster import RayCrew
from data_tools.execution.events import Done, Event, Executor, Failed, Progressed
from data_tools.execution.processes import Crew
from tests.films import files, film, settings
from tests.processes import below, gone

pytestmark = [pytest.mark.slow, pytest.mark.distributed]

ROOT = Path(__file__).parents[3]
ACT = "acts:act"  # a module beside this one
SMALL = 80 << 20  # bytes of a node's object store


def ray_processes() -> set[int]:
    """Everything that Ray runs below this process, the dead that nobody reaped left out."""
    return below("ray")


def wait_for(true: Callable[[], object], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    ray.shutdown()  # of tests of sweeps, in the same process
    before = ray_processes()
    (Path(tempfile.gettempdir()) / "ray").mkdir(exist_ok=True)  # where Ray notes the cluster, whatever folder that has
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="r") as folder:
        # a token that lies in somebody's home would be asked of nodes that start later, and of those alone
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.syspath_prepend(str(Path(__file__).parent))
        head = {"num_cpus": 1, "include_dashboard": False, "temp_dir": folder, "object_store_memory": SMALL}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            yield cluster
        finally:
            cluster.shutdown()
    wait_for(lambda: ray_processes() <= before)


@pytest.fixture
def cluster(nodes: Cluster) -> Cluster:
    """Two nodes of one CPU each, whatever an earlier test did to them."""
    if not nodes.worker_nodes:
        nodes.add_node(num_cpus=1, object_store_memory=SMALL)
    return nodes


def crew_at(cluster: Cluster, workers: int | None = None, time_limit: float = 60.0, **more: Any) -> RayCrew:
    return RayCrew(workers, time_limit, address=cluster.address, **more)


def ends(crew: Executor, jobs: Sequence[str], **more: Any) -> list[Event]:
    """How the jobs end, in their order."""
    found: dict[int, Event] = {}
    for event in crew.run(ACT, jobs, **more):
        if not isinstance(event, Progressed):
            assert event.job not in found, "a job ends once"
            found[event.job] = event
    assert sorted(found) == list(range(len(jobs))), "no job is lost"
    return [found[i] for i in range(len(jobs))]


def values(events: Sequence[Event]) -> list[str]:
    return [event.result.partition(" by ")[0] if isinstance(event, Done) else str(event) for event in events]


def work_on_two_nodes(crew: RayCrew) -> None:
    """Give out jobs until two nodes have done some."""
    seen = set[str]()
    deadline = time.monotonic() + 60

    def more() -> Iterator[str]:
        while len(seen) < 2 and time.monotonic() < deadline:
            yield "where 0.1"

    for event in crew.run(ACT, more()):
        if isinstance(event, Done):
            seen.add(event.result.partition(" by ")[0])
    assert len(seen) == 2


def test_jobs_are_done_on_all_nodes_and_judged_as_at_home(cluster: Cluster) -> None:
    bad = ["segfault", "killed", "exit", "raise", "missing", "croak", "grow 700"]
    with Crew(2, 60.0, memory_limit=0.5) as crew:
        wanted = ends(crew, bad)
    assert all(isinstance(end, Failed) for end in wanted)
    with crew_at(cluster, time_limit=5.0, memory_limit=0.5) as crew:
        work_on_two_nodes(crew)
        *found, hung, good = ends(crew, [*bad, "hang", "echo a"])
    assert found == wanted
    assert (hung, values([good])) == (Failed(len(bad), "no progress for 5 s: given up"), ["a"])


def test_progress_is_heard_while_a_job_runs(cluster: Cluster, tmp_path: Path) -> None:
    with crew_at(cluster, 1) as crew:
        assert isinstance(next(crew.run(ACT, [f"endless {tmp_path}/begun"])), Progressed)
        assert values(ends(crew, ["echo a", "echo b"])) == ["a", "b"], "and what was left is not heard any more"
        assert sum(e.amount for e in crew.run(ACT, ["slow"]) if isinstance(e, Progressed)) == 60


def test_the_same_worker_goes_on_with_what_follows(cluster: Cluster) -> None:
    asked: list[tuple[int, str]] = []

    def follow(job: int, result: str) -> tuple[str, str] | None:
        asked.append((job, result.partition(" by ")[0]))
        read, _, process = result.partition(" by ")
        return (ACT, f"{read.replace('_', ' ')} {process}") if read else None

    with crew_at(cluster) as crew:
        found = ends(crew, ["read echo_a", "echo", "read segfault_", "raise"], follow=follow)
    done, plain, dead, raised = found
    assert isinstance(done, Done)
    assert done.result.split()[1:] == [done.result.split()[1], "by", done.result.split()[1]], "by one process"
    assert values([plain]) == [""]
    assert dead == Failed(2, "the process died (SIGSEGV)")
    assert raised == Failed(3, "KeyError: 'a defect'")
    assert sorted(asked) == [(0, "echo_a"), (1, ""), (2, "segfault_")]


def test_the_job_of_a_lost_worker_is_done_by_another(cluster: Cluster, tmp_path: Path) -> None:
    file, notes = tmp_path / "begun", list[str]()

    def kill() -> None:
        wait_for(lambda: file.exists() and file.read_text() != "")
        os.kill(psutil.Process(int(file.read_text())).ppid(), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with crew_at(cluster, attempts=2, note=notes.append) as crew:
        found = ends(crew, [f"hang-once {file}", f"orphan-once {tmp_path}/other", "orphan", "echo a"])
        killer.join()
        child = int(file.read_text())
        wait_for(lambda: gone(child))
    assert values(found[:2] + found[3:]) == [str(file), f"{tmp_path}/other", "a"]
    assert found[2] == Failed(2, "the worker was lost 2 times")
    assert len(notes) == 4, notes


def test_the_jobs_of_a_lost_node_are_done_by_others(cluster: Cluster, tmp_path: Path) -> None:
    (node,) = cluster.worker_nodes
    doomed = node.all_processes["raylet"][0].process.pid
    file = tmp_path / "begun"

    def remove() -> None:
        wait_for(file.exists)
        cluster.remove_node(node, allow_graceful=False)

    remover = threading.Thread(target=remove)
    with crew_at(cluster) as crew:
        work_on_two_nodes(crew)
        remover.start()
        found = ends(crew, [f"linger {doomed} {file}"] * 6)
        remover.join()
        assert all(isinstance(end, Done) for end in found), found
        with crew_at(cluster, 1, patience=1.0) as more, pytest.raises(RuntimeError, match="no worker for us for 1 s"):
            ends(more, ["echo a"])
        cluster.add_node(num_cpus=1, object_store_memory=SMALL)
        work_on_two_nodes(crew)  # a node that joins gets work


def test_prepare_on_two_nodes_gives_the_bytes_of_one_process(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker is killed on the way; paths are relative, as people type them."""
    monkeypatch.chdir(tmp_path)
    for i in range(6):
        film(tmp_path / f"films/{i}.mp4", (2 * i, 40), (2 * i + 1, 64))

    killed: list[int] = []

    def kill_one() -> None:
        wait_for(lambda: len(list(Path("ray/staging").rglob("*.clip"))) > 1)
        wait_for(lambda: below("ray::Slot.turn"))
        slot = below("ray::Slot.turn").pop()
        os.kill(slot, signal.SIGKILL)
        killed.append(slot)

    killer = threading.Thread(target=kill_one)
    killer.start()
    options = ("workers=2", "shard_bytes=30000", "max_frames=20")
    summary = prepare(settings(Path("films"), Path("ray"), "executor=ray", f"ray.address={cluster.address}", *options))
    killer.join()
    assert killed
    assert summary.used == 6
    prepare(settings(Path("films"), Path("here"), *options))
    assert files(Path("ray")) == files(Path("here"))


def test_a_full_disk_stops_everything(cluster: Cluster) -> None:
    with crew_at(cluster) as crew, pytest.raises(OSError, match="No space left") as caught:
        ends(crew, ["hang", "full"])
    assert caught.value.filename == "disk/file"
    wait_for(lambda: not [p for p in psutil.process_iter(["cmdline"]) if "ray::Slot" in (p.info["cmdline"] or [])])


def test_what_the_user_can_do(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "here").touch()
    with crew_at(cluster, 1, probe=str(tmp_path / "here")) as crew:
        assert values(ends(crew, ["echo a"])) == ["a"]
    with (
        crew_at(cluster, 1, probe=str(tmp_path / "not here")) as crew,
        pytest.raises(
            ValueError, match=r"not visible on node .*: give a folder that all machines share, or an s3:// URL"
        ),
    ):
        ends(crew, ["echo a"])
    for address in ("127.0.0.1:1", "ray://127.0.0.1:1", "nonsense"):
        with pytest.raises(ValueError, match=f"cannot connect to a Ray cluster at {address}; give ray.address"):
            RayCrew(1, 60.0, address=address).__enter__()


def test_workers_that_need_a_gpu_are_where_there_is_one(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"has no GPU; give masks\.device=cpu"):
        crew_at(cluster, 1, gpu_share=0.5).__enter__()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    node = cluster.add_node(num_cpus=4, num_gpus=1, object_store_memory=SMALL)  # so it says: Ray does not look
    try:
        with crew_at(cluster, gpu_share=0.5) as crew:
            seen = values(ends(crew, ["environment CUDA_VISIBLE_DEVICES"] * 4))
            assert seen == ["5"] * 4
            assert len(crew._posts) == 2, "as many workers as the GPU has shares"
    finally:
        cluster.remove_node(node)


def test_a_ray_of_its_own_comes_and_goes_quietly(tmp_path: Path) -> None:
    code = f"""
from data_tools.execution.cluster import RayCrew
try:
    with RayCrew(1, 60.0) as crew:
        for event in crew.run("{ACT}", ["echo a", "endless {tmp_path}/begun"]):
            if hasattr(event, "result"): print(event.result.split()[0], flush=True)
except KeyboardInterrupt:
    print("interrupted")
"""
    paths = os.pathsep.join([str(Path(__file__).parent), str(ROOT)])
    environment = os.environ | {"PYTHONPATH": paths, "HOME": str(tmp_path), "RAY_ADDRESS": "127.0.0.1:1"}
    before = ray_processes()
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a test run in the background ignores it
    )
    wait_for((tmp_path / "begun").exists, 90.0)
    family = psutil.Process(parent.pid).children(recursive=True)
    assert len(family) > 3
    parent.send_signal(signal.SIGINT)
    assert parent.communicate(timeout=60) == ("a\ninterrupted\n", "")
    wait_for(lambda: all(gone(process.pid) for process in family))
    assert ray_processes() <= before
