"""A fork-based rank harness: the parent has imported torch and DeepSpeed already, so a distributed test costs seconds."""

from __future__ import annotations

import os
import pickle
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
import deepspeed
import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401 - so is what `initialize` imports late

TIMEOUT = 120.0
CONNECTIONS = (
    3  # attempts: on a loaded machine gloo's ranks sometimes lose each other while they meet ("connectFullMesh failed")
)


class RankError(AssertionError):
    """A rank failed; the text has its traceback."""


def run_ranks(
    world_size: int,
    function: Callable[..., Any],
    *arguments: Any,
    timeout: float = TIMEOUT,
    kill_when: Callable[[], bool] | None = None,
) -> list[Any]:
    """Call `function(rank, *arguments)` in `world_size` forked processes joined by gloo; returns their results by rank.

    Args:
        kill_when: looked at all the time; once true, every rank is killed with SIGKILL and the results are empty.
    Raises:
        RankError: with the traceback of every rank that raised, died or took too long. No process is left behind.
    """
    assert not dist.is_initialized(), "this process has a group of its own; run that in ranks too"
    attempts = CONNECTIONS
    while True:
        attempts -= 1
        with tempfile.TemporaryDirectory() as folder:
            children = [_fork(rank, world_size, function, arguments, Path(folder)) for rank in range(world_size)]
            killed, failures = _wait(children, Path(folder), time.monotonic() + timeout, kill_when)
            if killed:
                return []
            if failures and attempts and any(Path(folder).glob("apart-*")):
                continue  # no rank has begun: each waits for all others first
            if failures:
                raise RankError("\n".join(failures))
            assert kill_when is None, "the ranks ended before the moment to kill them"
            return [pickle.loads((Path(folder) / f"result-{rank}").read_bytes()) for rank in range(world_size)]


def _fork(rank: int, size: int, function: Callable[..., Any], arguments: tuple[Any, ...], folder: Path) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size), LOCAL_SIZE=str(size))
        os.environ.update(DS_ACCELERATOR="cpu", MASTER_ADDR="127.0.0.1", MASTER_PORT="0", OMP_NUM_THREADS="1")
        torch.set_num_threads(1)
        _meet(rank, size, folder)
        result = function(rank, *arguments)
        (folder / f"result-{rank}").write_bytes(pickle.dumps(result))
        code = 0
    except BaseException:
        (folder / f"failure-{rank}").write_text(traceback.format_exc())
    finally:
        os._exit(code)  # not through pytest's own exit


def _meet(rank: int, size: int, folder: Path) -> None:
    """Join the others; no rank goes on before all have."""
    try:
        dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
        dist.barrier()
    except RuntimeError:
        (folder / f"apart-{rank}").touch()
        raise


def _wait(
    children: list[int], folder: Path, deadline: float, kill_when: Callable[[], bool] | None
) -> tuple[bool, list[str]]:
    """Reap every child; after a failure or the deadline the others are given a moment and then killed."""
    waiting = dict(enumerate(children))
    failures = []
    while waiting:
        for rank, pid in list(waiting.items()):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                del waiting[rank]
                if status:
                    path = folder / f"failure-{rank}"
                    told = path.read_text() if path.exists() else f"died with status {status}"
                    failures.append(f"rank {rank}: {told}")
                    deadline = min(deadline, time.monotonic() + 5)
        if kill_when and len(waiting) == len(children) and kill_when():
            _kill(waiting)
            return True, []
        if waiting and time.monotonic() > deadline:
            _kill(waiting)
            return False, [*failures, f"ranks {sorted(waiting)}: still running at the deadline, killed"]
        time.sleep(0.005)
    return False, failures


def _kill(waiting: dict[int, int]) -> None:
    for pid in waiting.values():
        os.kill(pid, signal.SIGKILL)
    for pid in waiting.values():
        os.waitpid(pid, 0)
