"""How many processes, threads and batches ahead suit this machine. Imports no torch."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil

from fbm_dist.data.decoding.choice import decoded_by_readers
from fbm_dist.schema import ClipSpec, Data

CORES = "FBM_CORES"  # environment: a number of cores, where a job has a share of a machine that neither affinity nor cgroup tells
SHARED = Path("/dev/shm")  # where DALI's reader processes hand over what they read
MOST = 16  # reader processes or threads of a rank: more than any GPU needed so far
ENGINES = 7  # NVDEC units of an H100 or H200; more clips at a time than that only wait


@dataclass(frozen=True)
class Readers:
    """Of one rank."""

    workers: int  # reader processes
    threads: int  # of DALI's graph
    prefetch: int  # batches that are ready ahead


def cores() -> float:
    """That this job may use: its affinity, the quota of its cgroup (a container's limit), and FBM_CORES (a sweep's trial)."""
    allowed = min(float(len(os.sched_getaffinity(0))), float(os.environ.get(CORES, "inf")))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return min(allowed, int(quota) / int(period))
    except (OSError, ValueError):  # no cgroup, or "max"
        return allowed


def readers_of(data: Data, decoder: str, batch: int, device: str, ranks: int) -> Readers:
    """What `data` says, and by the machine what it leaves open.

    Of this rank's share of the cores, one is for training on a GPU, and half of them for training on the CPU; the rest reads.

    Args:
        batch: clips of a micro-batch.
        device: type of the trainer's device, cpu or cuda.
        ranks: processes of this job on this machine.
    """
    share = max(1, int(cores() / ranks))
    free = min(MOST, max(1, share - 1 if device == "cuda" else share // 2))
    if decoded_by_readers(decoder):
        workers, threads = free, 1 if device == "cpu" else 2  # of the masks
    elif decoder == "dali-cpu":
        workers, threads = max(1, free // 8), free
    else:
        workers, threads = max(1, free // 4), min(free, ENGINES + 1)
    workers, threads = data.workers or workers, data.threads or threads
    return Readers(workers, threads, data.prefetch or _prefetch(data.clip, batch, device, ranks))


def handed_over(spec: ClipSpec, batch: int, ahead: int) -> int:
    """Bytes of shared memory that a rank's readers hold: what they read lies there until it is used."""
    channels = 3 + (spec.mask or spec.use_truth_as_mask) + spec.truth
    return spec.length * spec.size**2 * channels * batch * (ahead + 1)


def check_shared_memory(spec: ClipSpec, batch: int, readers: Readers) -> None:
    """DALI's readers die with a bus error where it is too small for what they decode, as it is in a container by default.

    One rank's need is looked at: preflight looks at all of them together, before any has begun.

    Raises:
        ValueError: it is.
    """
    if not SHARED.is_dir():
        return
    needed = handed_over(spec, batch, readers.prefetch)
    free = shutil.disk_usage(SHARED).free
    if needed > free:
        raise ValueError(
            f"{SHARED} has {free / 1e6:.0f} MB free, and a process's readers need {needed / 1e6:.0f} MB: give the container "
            "more (docker run --shm-size=16g), or set data.prefetch=1 and a smaller training.micro_batch"
        )


def _prefetch(spec: ClipSpec, batch: int, device: str, ranks: int) -> int:
    """Two batches hide a slow clip; a GPU, whose steps are short, gets four. Not more than a sixteenth of the memory."""
    wanted = 2 if device == "cpu" else 4
    room = psutil.virtual_memory().available / 16 / ranks
    if SHARED.is_dir():
        room = min(room, shutil.disk_usage(SHARED).free / 2 / ranks)
    one = handed_over(spec, batch, 0)
    return max(1, min(wanted, int(room / one) - 1))
