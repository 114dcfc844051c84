"""A real Ray cluster of two nodes on this machine: trials land on both, and those of a lost node go on on the other."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from fbm_dist.sweeps.conduct import conduct
from fbm_dist.sweeps.record import Record
from tests.fbm_dist.sweeps.conftest import Make

pytestmark = [pytest.mark.slow, pytest.mark.distributed, pytest.mark.usefixtures("stand_in")]
SMALL = 80 << 20  # bytes of a node's object store


@pytest.fixture
def nodes() -> Iterator[Cluster]:
    """Two nodes of one CPU each."""
    import ray

    ray.shutdown()  # of other tests
    (Path(tempfile.gettempdir()) / "ray").mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="r") as folder:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.delenv("RAY_ADDRESS", raising=False)
        head = {"num_cpus": 1, "include_dashboard": False, "temp_dir": folder, "object_store_memory": SMALL}
        head["env_vars"] = {"STAND_IN_NODE": "first"}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        cluster.add_node(num_cpus=1, object_store_memory=SMALL, env_vars={"STAND_IN_NODE": "second"})
        try:
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()


def places(folder: Path, number: int) -> list[str]:
    """The nodes on which a trial was started."""
    path = folder / f"trials/{number:04d}/starts.txt"
    return [line.split()[1] for line in path.read_text().splitlines()] if path.exists() else []


def test_trials_land_on_both_nodes_and_go_on_where_one_is_lost(nodes: Cluster, make: Make, tmp_path: Path) -> None:
    (second,) = nodes.worker_nodes
    folder = tmp_path / "sweep"

    def lose() -> None:
        deadline = time.monotonic() + 200
        lines = [folder / f"trials/{number:04d}/metrics.jsonl" for number in (0, 1)]
        while time.monotonic() < deadline and not all(p.exists() and p.read_text().count("\n") > 3 for p in lines):
            time.sleep(0.05)
        nodes.remove_node(second, allow_graceful=False)

    loser = threading.Thread(target=lose)
    loser.start()
    space = "{optimizer.lr: {grid: [1e-3, 1e-2, 1e-1]}}"
    more = ["search=grid", f"ray.address={nodes.address}", "training.steps=40", "training.hang_timeout=200"]
    more += ["run.seed=18"]  # a node whose worker starts late would see no trial: the other would have done all
    assert conduct(make(space, *more)) == 0
    loser.join()
    found = Record.open(folder, "min").trials
    assert [trial.status for trial in found] == ["finished"] * 3
    assert sorted(places(folder, number)[0] for number in (0, 1)) == ["first", "second"], "one trial a node"
    moved = next(number for number in (0, 1) if places(folder, number)[0] == "second")
    assert places(folder, moved) == ["second", "first"], "it went on on the other node"
    log = (folder / f"trials/{moved:04d}/log.txt").read_text()
    assert "goes on from step 0" in log
    assert any(f"goes on from step {step}\n" in log for step in range(3, 40)), log
