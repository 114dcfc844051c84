"""The DALI graph: clips from a ClipSource -> normalised frames and masks, on a CPU or a GPU by the same lines."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali.pipeline import Pipeline

from fbm_dist.data.source import FIELDS, STOPS, ClipSource
from fbm_dist.schema import ClipSpec

TYPES = {
    "uint8": types.DALIDataType.UINT8,
    "int32": types.DALIDataType.INT32,
    "int64": types.DALIDataType.INT64,
    "float32": types.DALIDataType.FLOAT,
}


class ReaderLostError(RuntimeError):
    """A reader process ended while it was needed."""


class Running:
    """A built pipeline; it ends, with its reader processes, when this object goes."""

    def __init__(self, pipe: Pipeline, readers: list[BaseProcess]) -> None:
        self._pipe = pipe
        self._readers = readers
        self._inside = threading.Event()  # `run` is at work
        if readers:
            assert pipe._py_pool is not None
            condition = pipe._py_pool.pool._general_task_queue.cv_not_empty  # private to DALI; tested with its version
            # the thread knows the pipeline's lock but not the pipeline, which could not go otherwise
            threading.Thread(target=_free, args=(readers, self._inside, condition._woken_count), daemon=True).start()

    def run(self) -> tuple[Any, ...]:
        """The outputs of the next batch.

        Raises:
            ReaderLostError: a reader process was killed.
            RuntimeError: DALI's errors.
            ValueError: what the source itself refused.
        """
        self._check_readers(0.0)
        self._inside.set()
        try:
            return self._pipe.run()
        except RuntimeError:
            self._check_readers(0.1)
            raise
        except Exception as error:  # DALI wraps what a reader process raised into a plain Exception
            raise error.__cause__ or error from None
        finally:
            self._inside.clear()

    def _check_readers(self, timeout: float) -> None:
        sentinels = [reader.sentinel for reader in self._readers]
        if sentinels and multiprocessing.connection.wait(sentinels, timeout):
            raise ReaderLostError("a reader process of the loader ended: it was killed, or memory ran out") from None


def _free(readers: list[BaseProcess], inside: threading.Event, woken: Any) -> None:
    """Undo DALI's deadlock: it waits for ever that a reader wakes up, if that reader was killed in its sleep.

    DALI's own observer then closes the queue of results, and `run` ends in an error.
    """
    multiprocessing.connection.wait([reader.sentinel for reader in readers])
    time.sleep(1)
    if inside.is_set():
        woken.release()


def pipeline(
    source: ClipSource,
    *,
    decoder: str,
    batch: int,
    device_id: int | None,
    threads: int = 1,
    workers: int = 1,
    prefetch: int = 1,
    sample: tuple[np.ndarray, ...] | None = None,
) -> Running:
    """A running pipeline. Its outputs: `what`, video (t, h, w, 3 as c, t, h, w in [-1, 1]), then mask and truth where asked for.

    Args:
        device_id: the GPU; None builds the same graph on the CPU.
        workers: reader processes.
        prefetch: batches that are ready ahead of the one in use.
        sample: `source.fields` of one clip, read in this process in place of the source: to try that clip alone.
    """
    pipe = Pipeline(
        batch_size=batch,
        num_threads=threads,
        device_id=device_id,
        prefetch_queue_depth=prefetch,
        py_num_workers=workers,
        py_start_method="spawn",
    )
    reading: dict[str, Any] = {"source": lambda: sample, "parallel": False}
    if sample is None:
        reading = {"source": source, "parallel": True, "prefetch_queue_depth": prefetch}
    with pipe:
        given = fn.external_source(
            batch=False,
            num_outputs=len(source.fields),
            dtype=[TYPES[FIELDS[name][0]] for name in source.fields],
            ndim=[FIELDS[name][1] for name in source.fields],
            **reading,
        )
        clip = dict(zip(source.fields, given, strict=True))
        pipe.set_outputs(clip["what"], *_graph(clip, source.spec, decoder, device_id is not None))
    before = set(multiprocessing.active_children())
    with _without_main_module(), _without_signals():
        pipe.build()
    return Running(pipe, list(set(multiprocessing.active_children()) - before))


def _graph(clip: dict[str, Any], spec: ClipSpec, decoder: str, gpu: bool) -> Iterator[Any]:
    """Video, mask, truth: decoded, put in order, cut to the square, mirrored, normalised; in lock-step."""
    video = fn.reshape(clip["picture"], layout="FHWC") if decoder == "pyav" else _decode(clip, decoder)
    if gpu and decoder != "dali-mixed":
        video = video.gpu()
    if "turn" in clip:
        video = fn.sequence_rearrange(video, new_order=clip["turn"])
    video = _mirror(_square(video, clip, spec, types.DALIInterpType.INTERP_LINEAR), clip)
    yield fn.transpose(video, perm=[3, 0, 1, 2], output_layout="CFHW") * (1 / 127.5) - 1.0
    for name, interpolation in (
        ("mask", types.DALIInterpType.INTERP_LINEAR),  # soft scores
        ("truth", types.DALIInterpType.INTERP_NN),  # hard edges stay hard
    ):
        if name in clip:
            strip = fn.decoders.image(clip[name], device="cpu", output_type=types.DALIImageType.GRAY)
            frames = fn.reshape(strip, shape=clip["strip"], layout="FHWC")
            frames = fn.sequence_rearrange(frames, new_order=clip["shown"])
            frames = _square(frames.gpu() if gpu else frames, clip, spec, interpolation)
            yield fn.transpose(_mirror(frames, clip), perm=[3, 0, 1, 2], output_layout="CFHW") * (1 / 255)


def _decode(clip: dict[str, Any], decoder: str) -> Any:
    device = "mixed" if decoder == "dali-mixed" else "cpu"
    # pad_mode none: a clip that holds fewer frames than the index says is an error, not black frames
    return fn.decoders.video(clip["encoded"], device=device, frames=clip["frames"], pad_mode="none")


def _square(frames: Any, clip: dict[str, Any], spec: ClipSpec, interpolation: Any) -> Any:
    """The region as a square of `spec.size`. Given in shares, so frames and masks of any two sizes stay aligned."""
    region = {}
    if "corner" in clip:
        region = {"roi_start": clip["corner"], "roi_end": clip["opposite"], "roi_relative": True}
    return fn.resize(frames, size=[spec.size, spec.size], interp_type=interpolation, **region)


def _mirror(frames: Any, clip: dict[str, Any]) -> Any:
    return fn.flip(frames, horizontal=clip["mirror"]) if "mirror" in clip else frames


@contextmanager
def _without_main_module() -> Iterator[None]:
    """Start reader processes that do not import the program's main file again.

    Python's "spawn" would run it in each of them: with a notebook or a script without `if __name__ == "__main__"` that
    ends in an error, with any other it costs seconds and memory (torch). What readers call lives in this package.
    """
    main = sys.modules["__main__"]
    hidden = {name: main.__dict__.pop(name) for name in ("__spec__", "__file__") if name in main.__dict__}
    main.__spec__ = None
    try:
        yield
    finally:
        main.__dict__.update({"__spec__": None} | hidden)


@contextmanager
def _without_signals() -> Iterator[None]:
    """Processes started inside have `STOPS` blocked from their first instruction on (a mask is inherited); here they wait."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        resource_tracker.ensure_running()  # Python's own process, started by the first; it unblocks SIGTERM when it starts
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
