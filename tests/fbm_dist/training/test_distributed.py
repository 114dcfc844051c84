"""Who am I: launcher variables from torchrun, Slurm or nobody; agreement; generators."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from fbm_dist.schema import Training
from fbm_dist.training.distributed import (
    PeerError,
    environment,
    first_host,
    random_state,
    restore_random_state,
    seed_everything,
    start,
)
from tests.distributed import RankError, run_ranks

DONE = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_SIZE", "MASTER_ADDR", "MASTER_PORT"}


def test_nobody_launched_us() -> None:
    found = environment({})
    assert set(found) == DONE
    assert (found["RANK"], found["WORLD_SIZE"]) == ("0", "1")


def test_a_launchers_variables_are_left_alone() -> None:
    given = {
        "RANK": "3",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "4",
        "MASTER_ADDR": "a",
        "MASTER_PORT": "5",
        "LOCAL_WORLD_SIZE": "2",
    }
    assert environment(given) == {"LOCAL_SIZE": "2"}
    assert environment({**given, "SLURM_STEP_NUM_TASKS": "9", "SLURM_PROCID": "0"})["LOCAL_SIZE"] == "2"


def test_srun() -> None:
    step = {
        "SLURM_PROCID": "5",
        "SLURM_LOCALID": "1",
        "SLURM_STEP_NUM_TASKS": "8",
        "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
        "SLURM_STEP_NODELIST": "gpu[07-08]",
        "SLURM_JOB_ID": "123456",
    }
    assert environment(step) == {
        "RANK": "5",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "8",
        "LOCAL_SIZE": "4",
        "MASTER_ADDR": "gpu07",
        "MASTER_PORT": "13456",
    }


@pytest.mark.parametrize(("node", "tasks"), [("0", "4"), ("1", "4"), ("2", "3"), ("3", "1")])
def test_a_node_with_fewer_tasks(node: str, tasks: str) -> None:
    step = {"SLURM_STEP_NUM_TASKS": "12", "SLURM_STEP_TASKS_PER_NODE": "4(x2),3,1", "SLURM_NODEID": node}
    assert environment(step)["LOCAL_SIZE"] == tasks


def test_steps_of_one_job_do_not_share_a_port() -> None:
    ports = {
        environment({"SLURM_STEP_NUM_TASKS": "2", "SLURM_JOB_ID": "7", "SLURM_STEP_ID": step})["MASTER_PORT"]
        for step in "012"
    }
    assert len(ports) == 3


def test_a_plain_command_in_a_batch_script_is_one_process() -> None:
    assert environment({"SLURM_PROCID": "0", "SLURM_NTASKS": "16"})["WORLD_SIZE"] == "1"


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu07", "gpu07"),
        ("gpu[03-05,9],login", "gpu03"),
        ("a,b", "a"),
        ("rack[2,4]-eth", "rack2-eth"),
        ("rack[2,4]node[010-012],login", "rack2node010"),
        ("n1.x.y", "n1.x.y"),
    ],
)
def test_first_host(nodes: str, first: str) -> None:
    assert first_host(nodes) == first


def test_cuda_without_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"torch finds no GPU; use training\.device=cpu"):
        start(Training(steps=1, device="cuda"))


def test_random_state_comes_back() -> None:
    seed_everything(3)
    state = random_state()
    drawn = [(random.random(), np.random.rand(), float(torch.rand(()))) for _ in range(3)]
    restore_random_state(state)
    assert drawn == [(random.random(), np.random.rand(), float(torch.rand(()))) for _ in range(3)]


def disagree(rank: int) -> str:
    world = start(Training(steps=1, device="cpu", threads=1))
    assert world.gather(rank) == [0, 1]
    assert world.broadcast(f"from {rank}") == "from 0"
    try:
        with world.agreed():
            if rank == 1:
                raise ValueError("no such folder")
    except ValueError as error:
        return f"{type(error).__name__}: {error}" + (" (agreed)" if getattr(error, "agreed", False) else "")
    return "nothing"


@pytest.mark.distributed
def test_one_ranks_error_is_everyones() -> None:
    assert run_ranks(2, disagree) == [
        f"{PeerError.__name__}: rank 1: no such folder (agreed)",
        "ValueError: no such folder (agreed)",
    ]


def fail(rank: int) -> None:
    assert rank == 0, "the harness must show this"


@pytest.mark.distributed
def test_the_harness_reports_a_failing_rank() -> None:
    with pytest.raises(RankError, match=r"rank 1: Traceback[\s\S]*the harness must show this"):
        run_ranks(2, fail)


def _bf16_gradient_error(rank: int) -> float:
    start(Training(steps=1, engine="torch", precision="bf16", device="cpu"))
    torch.manual_seed(0)
    convolution, x = torch.nn.Conv3d(64, 64, 3, padding=1), torch.randn(4, 64, 2, 8, 8)
    convolution(x).square().mean().backward()
    expected = convolution.weight.grad
    convolution.weight.grad = None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = convolution(x)
    y.float().square().mean().backward()
    assert expected is not None
    assert convolution.weight.grad is not None
    return float((convolution.weight.grad - expected).norm() / expected.norm())


def test_bf16_gradients_are_right_on_a_cpu() -> None:
    """Two frames are what FBM's conv5 sees; oneDNN alone gives an error of 0.9 and more there, or NaN."""
    [error] = run_ranks(1, _bf16_gradient_error)
    assert error < 0.02
