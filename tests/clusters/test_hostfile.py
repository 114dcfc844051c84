"""`deepspeed --hostfile` over two real nodes: the same numbers as on one, and what is left when a node dies."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.clusters.nodes import Cluster
from tests.clusters.runs import DOOR, ROOT, arguments, assert_same, environment, losses
from tests.clusters.solo import CHECKPOINT_EVERY, HANG_TIMEOUT, STEPS, clips_read, train_solo
from tests.distributed import run_ranks

pytestmark = [pytest.mark.distributed, pytest.mark.slow, pytest.mark.timeout(300)]


def hostfile(nodes: Cluster, folder: Path) -> list[str]:
    """The launcher's words for one process on every node, with what DeepSpeed has to hand on to them."""
    (folder / "hosts").write_text("".join(f"{node.name} slots=1\n" for node in nodes.nodes))
    passed = {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "GLOO_SOCKET_IFNAME": "eth0"}
    (folder / ".deepspeed_env").write_text("".join(f"{name}={value}\n" for name, value in passed.items()))
    return ["deepspeed", "--hostfile", "hosts"]


def test_two_nodes_train_as_one_does(two_nodes: Cluster, shards: Path, reference: Path, tmp_path: Path) -> None:
    """One process on each of two nodes, joined by ssh, pdsh and their network: gradients, losses and weights of the reference."""
    words = [*arguments(shards, tmp_path / "run"), "training.preflight=on"]  # both nodes see the folder and the data
    command = [*hostfile(two_nodes, tmp_path), DOOR, *words]
    code, told = two_nodes.nodes[0].run(command, tmp_path, environment(), timeout=200)
    assert code == 0, told[-4000:]
    assert all(f"{node.name}: " in told for node in two_nodes.nodes), "pdsh marks each line with its node"
    assert_same(tmp_path / "run", reference)


def test_a_node_dies_and_the_other_goes_on_alone(two_nodes: Cluster, shards: Path, tmp_path: Path) -> None:
    """Cable pulled and every process killed: the survivor ends by itself; alone it does the same steps on the same clips."""
    survivor, dying = two_nodes.nodes
    run, log = tmp_path / "run", tmp_path / "launch.log"
    script = [str(ROOT / "tests/clusters/solo.py"), str(shards), str(run)]
    launch = survivor.start([*hostfile(two_nodes, tmp_path), *script, "0.15"], tmp_path, environment(), log)
    deadline = time.monotonic() + 120
    while len(losses(run)) < CHECKPOINT_EVERY + 2 or not any((run / "checkpoints").glob("step-*")):
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        assert launch.poll() is None, log.read_text()[-3000:]
        time.sleep(0.02)
    two_nodes.unplug(dying)
    dying.kill()
    assert launch.wait(timeout=HANG_TIMEOUT + 60) != 0
    told = log.read_text()
    assert "rank 1 (host node2" in told, told[-3000:]
    assert [words for words in survivor.processes() if str(run) in words] == [], (
        "no rank and no reader outlives the run"
    )
    done = len(losses(run))
    assert CHECKPOINT_EVERY < done < STEPS, "it died in mid-run"

    code, told = survivor.run(["deepspeed", "--num_accelerators", "1", *script, "0"], tmp_path, environment())
    assert code == 0, told[-3000:]
    first, second = clips_read(run, world=2), clips_read(run, world=1)
    resumed = min(second) - 1
    assert CHECKPOINT_EVERY <= resumed <= done, "from a checkpoint that both nodes wrote"

    run_ranks(1, train_solo, shards, tmp_path / "alone")
    wanted = clips_read(tmp_path / "alone", world=1)
    assert list(wanted) == list(range(1, STEPS + 1))
    assert first == {step: wanted[step] for step in first}
    assert second == {step: wanted[step] for step in range(resumed + 1, STEPS + 1)}
    names = ("step", "loss", "grad_norm", "lr", "epoch")  # not the error: it is a root, taken per micro-batch
    for ours, theirs in zip(losses(run), losses(tmp_path / "alone"), strict=True):
        wanted_line = pytest.approx([theirs[name] for name in names], rel=1e-5)
        assert [ours[name] for name in names] == wanted_line, f"resumed after step {resumed}"
