"""How fast each decoder is here: a few batches of the data set itself, once; the answer is kept on this machine. Imports no torch."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from data_tools.places import atomic
from fbm_dist.data.decoding import graph
from fbm_dist.data.machine import Readers
from fbm_dist.data.source import ClipSource

log = logging.getLogger("fbm_dist.data")

ROUNDS = 3  # timed; the fastest counts
CLIPS = 8  # in each: the same for any batch, so that training and evaluation come to the same answer


def speeds(
    decoders: Sequence[str],
    source_of: Callable[[str], ClipSource],
    readers_of: Callable[[str], Readers],
    device_id: int | None,
) -> dict[str, float]:
    """Clips a second of each decoder with the readers that it would have; 0.0 for one that fails.

    Args:
        source_of: reads clips for a decoder, in batches of `CLIPS`; any order will do, it is the first batch that is timed.
    """
    return {name: _speed(name, source_of(name), readers_of(name), device_id) for name in decoders}


def _speed(decoder: str, source: ClipSource, readers: Readers, device_id: int | None) -> float:
    """Reading is shared by reader processes, and what the graph does by its threads; here one process reads."""
    try:
        found = []
        pipe: graph.Running | None = None
        for _ in range(ROUNDS + 1):  # the first warms up
            began = time.perf_counter()
            values = [source.read(0, slot) for slot in range(CLIPS)]
            reading = time.perf_counter() - began
            if pipe is None:
                samples = [tuple(value[name] for name in source.fields) for value in values]
                threads = readers.threads
                pipe = graph.pipeline(
                    source, decoder=decoder, batch=CLIPS, device_id=device_id, threads=threads, samples=samples
                )
                pipe.run()
            began = time.perf_counter()
            pipe.run()
            found.append(reading / readers.workers + time.perf_counter() - began)
        return CLIPS / min(found[1:])
    except RuntimeError as error:
        log.warning("%s does not decode here: %s", decoder, " ".join(str(error).split())[:300])
        return 0.0
    finally:
        source.close()


class Remembered:
    """What was measured, in a file of this machine: a run that is started again reads with the same decoder."""

    def __init__(self, folder: Path, *what: object) -> None:
        """`what`: all that the answer depends on, besides this machine and the versions of the decoders."""
        known = (platform.node(), version("av"), version("nvidia-dali-cuda130"), *what)
        name = hashlib.sha256(repr(known).encode()).hexdigest()[:32]
        self._path = folder / "decoders" / f"{name}.json"

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
