"""The machines that the other tests run on are machines: apart in every respect, joined by ssh, and gone without a trace."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.clusters.nodes import Cluster, obstacle
from tests.clusters.runs import ROOT, environment
from tests.processes import gone

MAKER = """
import sys, time
from pathlib import Path
from tests.clusters.nodes import cluster
with cluster(Path(sys.argv[1])) as made:
    made.nodes[0].start(["sleep", "1000"], Path("/"), {}, Path(sys.argv[1]) / "log")
    print(*[machine.pid for machine in made.machines], flush=True)
    time.sleep(1000)
"""


@pytest.mark.distributed
def test_nodes_are_apart_and_reach_each_other_by_ssh(two_nodes: Cluster, tmp_path: Path) -> None:
    first, second = two_nodes.nodes
    asked = ["ssh", "-o", "ConnectTimeout=20", second.name, "hostname; hostname -I; ls /dev/shm; cat /proc/1/comm"]
    (Path("/dev/shm") / f"of-the-host-{tmp_path.name}").touch()
    try:
        code, told = first.run(asked, tmp_path, environment())
    finally:
        (Path("/dev/shm") / f"of-the-host-{tmp_path.name}").unlink()
    assert (code, told.split()) == (0, ["node2", "10.77.0.2", "sshd"]), told
    two_nodes.unplug(second)
    asked[2] = "ConnectTimeout=1"
    assert first.run(asked, tmp_path, environment())[0] == 255
    assert any("sshd" in words for words in second.processes()), "it lives, but nobody hears of it"


@pytest.mark.distributed
def test_a_cluster_dies_with_its_maker(tmp_path: Path) -> None:
    """SIGKILL leaves no time for tearing down: the kernel does it."""
    reason = obstacle()
    if reason:
        pytest.skip(reason)
    command = [sys.executable, "-c", MAKER, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True) as maker:
        assert maker.stdout is not None
        pids = [int(word) for word in maker.stdout.readline().split()]
        assert len(pids) == 3
        assert not any(map(gone, pids))
        maker.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while left := [pid for pid in pids if not gone(pid)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
