"""World: who this process is among its peers, the few collectives that the trainer needs, and agreement on errors."""

from __future__ import annotations

import os
import random
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d

from fbm_dist.schema import Training

T = TypeVar("T")
TIMEOUT = timedelta(minutes=30)  # a first batch, a slow file system or a long compile must not count as a hang
DEFAULT_PORT = 29500


class PeerError(ValueError):
    """What went wrong on another rank, told on this one."""


def agreed(text: str) -> ValueError:
    """An error that every rank raises by itself, with the same text: rank 0 alone has to speak about it."""
    error = ValueError(text)
    error.agreed = True  # type: ignore[attr-defined]
    return error


@dataclass(frozen=True)
class World:
    """One process of `size`. `device` is where its share of the model lives."""

    rank: int
    local_rank: int
    size: int
    local_size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """True on the rank that speaks, logs and registers."""
        return self.rank == 0

    def say(self, text: str) -> None:
        """Print one line, on rank 0 alone."""
        if self.first:
            with suppress(OSError):  # nobody reads any more: no reason to stop
                print(text, flush=True)

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.size > 1:
            self.gather(None)  # over CPU tensors: no GPU is made to wait

    def gather(self, value: T) -> list[T]:
        """`value` of every rank, in rank order, on every rank. Any picklable value."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def broadcast(self, value: T) -> T:
        """Rank 0's `value`, on every rank."""
        if self.size == 1:
            return value
        box: list[Any] = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def sum_(self, tensor: torch.Tensor) -> torch.Tensor:
        """Add up `tensor` over the ranks, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def mean_(self, tensor: torch.Tensor) -> torch.Tensor:
        """Average a floating-point `tensor` over the ranks, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
            tensor.div_(self.size)
        return tensor

    @contextmanager
    def agreed(self) -> Iterator[None]:
        """What fails inside on one rank fails on all of them, so that none waits for a peer that has gone.

        No collective may run inside. The error is marked as agreed: rank 0 alone has to speak about it.

        Raises:
            PeerError: another rank failed; the text is that rank's.
        """
        error: Exception | None = None
        try:
            yield
        except Exception as caught:
            error = caught
        texts = self.gather(None if error is None else (str(error) or type(error).__name__))
        failed = [(rank, text) for rank, text in enumerate(texts) if text is not None]
        if error is None and failed:
            rank, text = failed[0]
            error = PeerError(text if self.size == len(failed) else f"rank {rank}: {text}")
        if error is not None:
            error.agreed = True  # type: ignore[attr-defined]
            raise error


def environment(variables: dict[str, str]) -> dict[str, str]:
    """The launcher's variables that are missing in `variables`, from Slurm's where a step runs, else for one process.

    Only `srun` sets SLURM_STEP_NUM_TASKS: a plain command inside a batch script of many tasks stays a single process.
    """
    found: dict[str, str] = {}
    tasks = variables.get("SLURM_STEP_NUM_TASKS")
    if "RANK" not in variables and tasks is not None:
        found["RANK"] = variables.get("SLURM_PROCID", "0")
        found["LOCAL_RANK"] = variables.get("SLURM_LOCALID", "0")
        found["WORLD_SIZE"] = tasks
        found["LOCAL_SIZE"] = tasks_of_node(
            variables.get("SLURM_STEP_TASKS_PER_NODE", tasks), int(variables.get("SLURM_NODEID", "0"))
        )
        found["MASTER_ADDR"] = first_host(variables.get("SLURM_STEP_NODELIST", "127.0.0.1"))
        # several steps of one job may run at the same time on the same first node
        number = int(variables.get("SLURM_JOB_ID", "0")) + 7919 * int(variables.get("SLURM_STEP_ID", "0"))
        found["MASTER_PORT"] = str(10_000 + number % 20_000)
    defaults = {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "LOCAL_SIZE": variables.get("LOCAL_WORLD_SIZE", "1"),  # torchrun's name for it
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(DEFAULT_PORT),
    }
    return {name: found.get(name, value) for name, value in defaults.items() if name not in variables}


def tasks_of_node(tasks_per_node: str, node: int) -> str:
    """How many tasks of a Slurm step run on its node number `node`: 1 of `4(x2),3` -> `4`."""
    counts: list[str] = []
    for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", tasks_per_node):
        counts += [count] * int(times or 1)
    if node >= len(counts):
        raise ValueError(f"cannot read node {node} of the Slurm step's tasks {tasks_per_node!r}; set LOCAL_SIZE")
    return counts[node]


def first_host(nodes: str) -> str:
    """The first host of a Slurm node list: `gpu[03-05,9],login` -> `gpu03`."""
    match = re.match(r"(?:[^\[\],]|\[[^\]]*\])+", nodes)  # up to the first comma outside of brackets
    if not match:
        raise ValueError(f"cannot read the Slurm node list {nodes!r}; set MASTER_ADDR")
    return re.sub(r"\[(\d+)[^\]]*\]", r"\1", match.group())


def start(training: Training) -> World:
    """Join the process group (made here unless it exists), choose the device, fix threads and determinism.

    Raises:
        ValueError: `training.device` is cuda and there is none.
    """
    variables = {**os.environ, **environment(dict(os.environ))}
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_SIZE")
    rank, local_rank, size, local_size = (int(variables[name]) for name in names)
    device = choose_device(training.device, local_rank)
    # The watchdog, which names the rank, comes first; DeepSpeed makes groups of its own, with torch's defaults.
    timeout = max(TIMEOUT, timedelta(seconds=2 * training.hang_timeout))
    distributed_c10d.default_pg_timeout = distributed_c10d.default_pg_nccl_timeout = timeout
    if not dist.is_initialized() and (size > 1 or training.engine == "deepspeed"):
        os.environ.update(variables)  # torch and DeepSpeed read them again
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"  # objects travel over CPU in both
        if size == 1:  # an own store: no port, so that any number of single runs share a machine
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1, timeout=timeout)
        else:
            dist.init_process_group(backend, rank=rank, world_size=size, timeout=timeout)
    cores = len(os.sched_getaffinity(0))
    given = training.threads or int(os.environ.get("OMP_NUM_THREADS", "0") or 0)
    torch.set_num_threads(given or max(1, cores // local_size))
    if device.type == "cpu":  # resume is bit for bit here; on a GPU speed is worth more than the last bit
        torch.set_deterministic_debug_mode("warn")  # use_deterministic_algorithms would import the compiler: seconds
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        # oneDNN's bf16 weight gradient of a 3x3x3 convolution over two frames reads memory that nobody wrote (seen in torch 2.15).
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", UserWarning
            )  # it also sets TF32 for Intel GPUs, and says that there are none
            torch.backends.mkldnn.set_flags(training.precision != "bf16")
    else:
        torch.backends.cudnn.benchmark = True
    if dist.is_initialized():
        rank, size = dist.get_rank(), dist.get_world_size()
    return World(rank, local_rank, size, local_size, device)


def leave() -> None:
    """Part from the peers at the end of a program, on every rank; nothing where there is no process group.

    Left to the interpreter's exit, torch's threads abort the process now and then ("terminate called without an active
    exception", exit code 134 in place of the program's own; seen in torch 2.15 with gloo, one run in ten).
    """
    if dist.is_initialized():
        dist.destroy_process_group()


def choose_device(wanted: str, local_rank: int) -> torch.device:
    """`auto`, `cpu` or `cuda` -> this process's device; a GPU is bound by the local rank."""
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ValueError(
            "training.device is cuda, but torch finds no GPU; use training.device=cpu, or check the driver"
        )
    device = torch.device("cuda", local_rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's generators (CPU and GPU)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def random_state() -> dict[str, Any]:
    """The generators' states as values that `torch.load(weights_only=True)` reads."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    state = {
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    """The inverse of `random_state`."""
    torch.set_rng_state(state["torch"])
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
