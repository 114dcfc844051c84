"""Which executor a `prepare` asks for."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from data_tools.execution.events import Executor
from data_tools.places import Place, is_local
from data_tools.schema import Prepare

CUDA = 4.0  # GiB that CUDA's libraries may hold in a process before its first film: not the film's fault
GPU_SHARE = 0.125  # of a GPU, that a worker on a Ray cluster takes: decoding and encoding keep a core busy meanwhile


def crew_of(settings: Prepare, probe: Place, note: Callable[[str], None]) -> AbstractContextManager[Executor]:
    """The workers that the settings ask for.

    Args:
        probe: a file of the output folder, which all workers must see.
        note: told what a user may want to know, such as a worker that was lost.
    Raises:
        ValueError: the Ray cluster cannot be had.
    """
    on_gpu = settings.masks.device == "cuda"
    limits: dict[str, Any] = {
        "time_limit": settings.time_limit,
        "job_limit": settings.film_time_limit,
        "memory_limit": settings.memory_limit + CUDA * on_gpu,
    }
    if settings.executor == "local":
        from data_tools.execution.processes import Crew

        return Crew(settings.num_workers, **limits)
    from data_tools.execution.cluster import RayCrew

    return RayCrew(
        settings.workers,
        address=settings.ray.address,
        attempts=settings.ray.attempts,
        probe=str(probe.resolve()) if is_local(probe) else None,
        note=note,
        gpu_share=GPU_SHARE * on_gpu,
        **limits,
    )
