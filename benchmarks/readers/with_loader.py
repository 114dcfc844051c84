"""This project's loader: its batches, and its reading alone."""

from __future__ import annotations

import itertools
import time
import typing
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch

from benchmarks.readers.measuring import Run
from fbm_dist.data.loader import Loader
from fbm_dist.schema import ClipSpec, Data

DECODERS: tuple[str, ...] = typing.get_args(Data.model_fields["decode"].annotation)
WARM = 8  # batches; more than is read ahead


def clips(data: Data, batch: int) -> Run:
    """Clips of the batches of one rank, in the global order."""

    def run(amount: float) -> Iterator[float]:
        with Loader(data, seed=0, global_batch=batch, micro_batch=batch) as loader:
            stream = iter(loader)
            for _ in islice(stream, WARM):
                pass
            yield 0.0
            for number, clip in enumerate(stream, start=1):
                assert clip.video.dtype == torch.float32
                assert clip.video.shape[0] == batch
                yield float(number * batch)

    return run


def first_batch(data: Data, batch: int, consumed: int) -> float:
    """Seconds from Loader(...) to its first batch, reader processes and all."""
    start = time.perf_counter()
    with Loader(data, seed=0, global_batch=batch, micro_batch=batch, consumed=consumed) as loader:
        next(iter(loader))
        return time.perf_counter() - start


def decoders(path: Path, spec: ClipSpec) -> tuple[dict[str, Data], dict[str, str]]:
    """Settings with each decoder that reads this data set here, the choice of `auto` first, and notes on it and on those that do not."""
    found: dict[str, Data] = {}
    notes: dict[str, str] = {}
    for asked in DECODERS:
        data = Data.model_validate({"path": path, "clip": spec, "decode": asked})
        try:
            with Loader(data, seed=0, global_batch=1, micro_batch=1) as loader:
                chosen = loader.decoder
        except ValueError:
            notes[asked] = "does not decode these clips here"
            continue
        if asked == "auto":
            notes[chosen] = "what auto chooses"
        found[chosen] = data  # an explicit one in place of auto, which would measure again
    return found, notes


def members(path: Path, batch: int) -> Run:
    """MB of videos and masks as reader processes read them: in the plan's order, any clip after any other. In this process."""

    def run(amount: float) -> Iterator[float]:
        spec = ClipSpec(mask=True)
        with Loader(Data(path=path, clip=spec), seed=0, global_batch=batch, micro_batch=batch) as loader:
            source = loader._opened.source(loader._order, "dali-cpu")
            source.read(0, 0)
            yield 0.0
            done = 0
            for number in itertools.count():
                for slot in range(batch):
                    values = source.read(number, slot)
                    done += values["encoded"].nbytes + values["mask"].nbytes
                yield done / 1e6

    return run
