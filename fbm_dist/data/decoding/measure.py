"""How fast each decoder is here: a few batches of the data set itself, once; the answer is kept on this machine. Imports no torch."""

from __future__ import annotations

import json
import logging
import platform
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from data_tools.places import atomic
from fbm_dist.data.decoding import graph
from fbm_dist.data.index.cache import hashed
from fbm_dist.data.machine import Readers
from fbm_dist.data.source import ClipSource

Sample = tuple[np.ndarray, ...]  # the source's fields of a clip

log = logging.getLogger("fbm_dist.data")

ROUNDS = 3  # timed; the fastest counts
CLIPS = 8  # in each: the same for any batch, so that training and evaluation come to the same answer


def speeds(
    decoders: Sequence[str],
    source_of: Callable[[str], ClipSource],
    readers_of: Callable[[str], Readers],
    device_id: int | None,
) -> tuple[dict[str, float], str]:
    """Clips a second of each decoder with the readers that it would have; 0.0 for one that fails, and why the last one did.

    Args:
        source_of: reads clips for a decoder, in batches of `CLIPS`; any order will do, it is the first batch that is timed.
    """
    found, reason = {}, ""
    for name in decoders:
        try:
            found[name] = _speed(name, source_of(name), readers_of(name), device_id)
        except (RuntimeError, OSError, ValueError) as error:  # other ranks wait for the answer, whatever it is
            found[name], reason = 0.0, " ".join(str(error).split())[:300]
            log.warning("%s does not decode here: %s", name, reason)
    return found, reason


def _speed(decoder: str, source: ClipSource, readers: Readers, device_id: int | None) -> float:
    """Reading is shared by reader processes, and what the graph does by its threads; here one process reads."""

    def build(samples: list[Sample]) -> graph.Running:
        options = {"decoder": decoder, "device_id": device_id, "threads": readers.threads}
        pipe = graph.pipeline(source, batch=len(samples), samples=samples, **options)  # type: ignore[arg-type]
        pipe.run()
        return pipe

    try:
        samples = [tuple(value[name] for name in source.fields) for value in _read(source)]
        try:
            pipe = build(samples)
        except RuntimeError:  # a broken clip must not cost the decoder
            samples = [sample for sample in samples if _passes(build, sample)]
            if not samples:
                raise
            pipe = build(samples)
        found = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            _read(source)
            reading = (time.perf_counter() - began) / CLIPS
            began = time.perf_counter()
            pipe.run()
            found.append(reading / readers.workers + (time.perf_counter() - began) / len(samples))
        return 1 / min(found)
    finally:
        source.close()


def _read(source: ClipSource) -> list[dict[str, np.ndarray]]:
    return [source.read(0, slot) for slot in range(CLIPS)]


def _passes(build: Callable[[list[Sample]], graph.Running], sample: Sample) -> bool:
    try:
        build([sample])
    except RuntimeError:
        return False
    return True


class Remembered:
    """What was measured, in a file of this machine: a run that is started again reads with the same decoder."""

    def __init__(self, folder: Path, *what: object) -> None:
        """`what`: all that the answer depends on, besides this machine and the versions of the decoders."""
        known = (platform.node(), version("av"), version("nvidia-dali-cuda130"), *what)
        self._path = folder / "decoders" / f"{hashed(*known)}.json"

    def get(self) -> str | None:
        """The decoder, if it was chosen before."""
        try:
            found = json.loads(self._path.read_text())["decoder"]
            return found if isinstance(found, str) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def set(self, decoder: str, measured: dict[str, float]) -> None:
        """Keep it; what cannot be kept is measured again."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with atomic(self._path, durable=False) as file:
                file.write(json.dumps({"decoder": decoder, "clips_per_second": measured}).encode())
        except OSError as error:
            log.warning("%s: the choice of the decoder could not be kept: %s", self._path, error.strerror)
