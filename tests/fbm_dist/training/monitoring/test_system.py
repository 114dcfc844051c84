"""System metrics: they follow what this process does, and the fullest rank is not averaged away."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from fbm_dist.training.monitoring.system import SystemMetrics, over_ranks, tree_memory

MB = 1_000_000


def test_figures_of_a_cpu_rank() -> None:
    metrics = SystemMetrics(torch.device("cpu"))
    figures = metrics.figures()
    assert all(name.startswith("system/") for name in figures)  # what MLflow's tab looks for
    assert not any("gpu" in name for name in figures)
    assert 0 <= figures["system/cpu_utilization_percentage"] <= 100
    assert 0 < figures["system/max_system_memory_usage_percentage"] <= 100
    assert 0 < figures["system/max_process_memory_megabytes"] <= 2 * figures["system/system_memory_usage_megabytes"]


def test_memory_counts_reader_processes_until_they_end() -> None:
    before = tree_memory()
    hold = "held = bytearray(b'1') * 200_000_000; print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None
        reader.stdout.readline()
        assert tree_memory() - before > 190 * MB
        reader.stdin.close()
    assert tree_memory() - before < 150 * MB


def test_over_ranks_takes_the_mean_but_of_memory_the_largest() -> None:
    rows = [
        {"system/cpu_utilization_percentage": 20.0, "system/max_process_memory_megabytes": 900.0},
        {"system/cpu_utilization_percentage": 60.0, "system/max_process_memory_megabytes": 300.0},
    ]
    merged = over_ranks(rows)
    assert merged == {"system/cpu_utilization_percentage": 40.0, "system/max_process_memory_megabytes": 900.0}


def test_a_rank_without_a_figure_takes_no_part_in_it() -> None:
    rows = [{"system/gpu_power_usage_watts": 300.0, "system/max_gpu_memory_usage_megabytes": 7.0}, {}]
    assert over_ranks(rows) == rows[0]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU, and pytest -m gpu")
def test_figures_of_a_gpu_rank() -> None:
    device = torch.device("cuda", 0)
    metrics = SystemMetrics(device)
    before = metrics.figures()["system/max_gpu_memory_allocated_megabytes"]
    held = torch.zeros(256 * MB, dtype=torch.uint8, device=device)
    figures = metrics.figures()
    assert figures["system/max_gpu_memory_allocated_megabytes"] >= before + 256
    assert figures["system/max_gpu_memory_reserved_megabytes"] >= 256
    del held
