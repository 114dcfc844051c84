"""System metrics of a rank, under the names that MLflow's "System metrics" tab shows: CPU, memory, and the rank's own GPU."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import psutil
import torch

from fbm_dist.training.monitoring.metrics import merge

PREFIX = "system/"
MEGABYTE = 1e6  # as MLflow counts
# Over ranks, the one that is nearest to running out decides, not the mean.
WORST = "max_"


class SystemMetrics:
    """Reads the counters of this machine and process; nothing here makes a GPU wait.

    MLflow's own collectors are not used: importing them costs three seconds, and they number GPUs by machine, not by rank.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        psutil.cpu_percent()  # utilisation is counted from one call to the next
        self._gpu = device.type == "cuda"
        self._nvml = self._gpu  # until the driver says that it cannot tell

    def figures(self) -> dict[str, float]:
        """Utilisation in percent since the last call (the GPU's: over the last moment), memory in MB, power in watts.

        `max_` in a name: over ranks the largest is meant (`over_ranks`).
        """
        memory = psutil.virtual_memory()
        found = {
            "cpu_utilization_percentage": psutil.cpu_percent(),
            "system_memory_usage_megabytes": (memory.total - memory.available) / MEGABYTE,
            "max_system_memory_usage_percentage": memory.percent,
            "max_process_memory_megabytes": tree_memory() / MEGABYTE,
        }
        if self._gpu:
            found |= self._gpu_figures()
        return {PREFIX + name: float(value) for name, value in found.items()}

    def _gpu_figures(self) -> dict[str, float]:
        found: dict[str, float] = {
            "max_gpu_memory_allocated_megabytes": torch.cuda.max_memory_allocated(self.device) / MEGABYTE,
            "max_gpu_memory_reserved_megabytes": torch.cuda.max_memory_reserved(self.device) / MEGABYTE,
        }
        if self._nvml:
            try:  # the driver's library: unlike the runtime's, its calls queue behind no kernel
                found["max_gpu_memory_usage_megabytes"] = torch.cuda.device_memory_used(self.device) / MEGABYTE
                found["gpu_utilization_percentage"] = torch.cuda.utilization(self.device)
                found["gpu_power_usage_watts"] = torch.cuda.power_draw(self.device) / 1000
            except Exception:  # MIG, containers without NVML: a figure less is no reason to end a run
                self._nvml = False
        return found


def over_ranks(rows: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The ranks' figures as one: the mean, or the largest where the name says `max_`."""
    rows = list(rows)
    largest: dict[str, float] = {}
    for row in rows:
        for name, value in row.items():
            if name.startswith(PREFIX + WORST):
                largest[name] = max(value, largest.get(name, value))
    return merge(rows) | largest


def tree_memory() -> int:
    """Bytes of this process and of those that its main thread started (readers); shared pages count once for each.

    The kernel's list is read directly: psutil would look at every process of the machine, and a GPU's process has many threads.
    """
    page = os.sysconf("SC_PAGE_SIZE")
    return sum(_resident(pid) * page for pid in (os.getpid(), *_children()))


def _children() -> list[int]:
    own = os.getpid()
    try:
        return [int(pid) for pid in Path(f"/proc/{own}/task/{own}/children").read_text().split()]
    except OSError:  # a kernel without this list
        return []


def _resident(pid: int) -> int:
    """Pages in memory; 0 for a process that has gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0
