"""The DALI graph: clips from a ClipSource -> normalised frames and masks, on a CPU or a GPU by the same lines."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali.pipeline import Pipeline

from fbm_dist.data.process import STOPS
from fbm_dist.data.source import FIELDS, OTHER, ClipSource
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
    samples: Sequence[tuple[np.ndarray, ...]] | None = None,
) -> Running:
    """A running pipeline. Its outputs: `what`, then as squares of bytes video and, where asked for, mask and truth: (t, h, w, c), or where
    the readers decode (`choice.decoded_by_readers`) (t, c, h, w) and (t, h, w).

    Args:
        device_id: the GPU; None builds the same graph on the CPU.
        workers: reader processes.
        prefetch: batches that are ready ahead of the one in use.
        samples: `source.fields` of a whole batch, read in this process in place of the source: to try or to time these clips alone.
    """
    pipe = Pipeline(
        batch_size=batch,
        num_threads=threads,
        device_id=device_id,
        prefetch_queue_depth=prefetch,
        py_num_workers=workers,
        py_start_method="spawn",
    )
    reading: dict[str, Any] = {"source": source, "parallel": True, "prefetch_queue_depth": prefetch}
    if samples is not None:
        reading = {"source": lambda info: samples[info.idx_in_batch], "parallel": False}
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
    """Video, mask, truth: decoded, put in order, cut to the square; in lock-step."""
    if "picture" in clip:  # the readers did
        for name in ("picture", "mask_squares", "truth_squares"):
            if name in clip:
                yield clip[name].gpu() if gpu else clip[name]
        return
    linear = types.DALIInterpType.INTERP_LINEAR
    yield _joined([_square(_decode(clip, decoder, gpu, of), clip, spec, linear, of) for of in _films(spec)])
    for name, interpolation in (
        ("mask", linear),  # soft scores
        ("truth", types.DALIInterpType.INTERP_NN),  # hard edges stay hard
    ):
        if name in clip:
            yield _joined([_square(_strip(clip, name, gpu, of), clip, spec, interpolation, of) for of in _films(spec)])


def _films(spec: ClipSpec) -> tuple[str, ...]:
    """Endings of the fields: the clip's own, and those of the frame of another film."""
    return ("", OTHER) if spec.negative else ("",)


def _joined(parts: list[Any]) -> Any:
    return fn.cat(*parts, axis=0) if len(parts) > 1 else parts[0]


def _decode(clip: dict[str, Any], decoder: str, gpu: bool, of: str) -> Any:
    device = "mixed" if decoder == "dali-mixed" else "cpu"
    # pad_mode none: a clip that holds fewer frames than the index says is an error, not black frames
    video = fn.decoders.video(clip["encoded" + of], device=device, frames=clip["frames" + of], pad_mode="none")
    if gpu and device == "cpu":
        video = video.gpu()
    return fn.sequence_rearrange(video, new_order=clip["turn"]) if "turn" in clip and not of else video


def _strip(clip: dict[str, Any], name: str, gpu: bool, of: str) -> Any:
    """The shown frames of masks that are stored one above the other."""
    strip = fn.decoders.image(clip[name + of], device="cpu", output_type=types.DALIImageType.GRAY)
    frames = fn.reshape(strip, shape=clip["strip" + of], layout="FHWC")
    frames = fn.sequence_rearrange(frames, new_order=clip["shown" + of])
    return frames.gpu() if gpu else frames


def _square(frames: Any, clip: dict[str, Any], spec: ClipSpec, interpolation: Any, of: str) -> Any:
    """The region as a square of `spec.size`. Given in shares, so frames and masks of any two sizes stay aligned."""
    region = {}
    if "corner" in clip:
        region = {"roi_start": clip["corner" + of], "roi_end": clip["opposite" + of], "roi_relative": True}
    return fn.resize(frames, size=[spec.size, spec.size], interp_type=interpolation, **region)


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
