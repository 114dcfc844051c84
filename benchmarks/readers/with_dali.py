"""DALI's own reader of tars, `fn.readers.webdataset`, without decoding."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nvidia.dali import fn
from nvidia.dali.pipeline import Pipeline

from benchmarks.readers.measuring import Run


def members(tars: list[str], extensions: tuple[str, ...], batch: int, held: int) -> Run:
    """MB of these members, shuffled through a buffer of `held` samples."""

    def run(amount: float) -> Iterator[float]:
        pipe = Pipeline(batch_size=batch, num_threads=1, device_id=None, prefetch_queue_depth=2, seed=0)
        with pipe:
            found: Any = fn.readers.webdataset(
                paths=tars,
                index_paths=[str(Path(tar).with_suffix(".idx")) for tar in tars],
                ext=list(extensions),
                random_shuffle=True,
                initial_fill=held,
            )
            pipe.set_outputs(*found)
        pipe.build()
        done = 0.0
        pipe.run()
        yield done
        while True:
            done += sum(sum(output.shape()[i][0] for i in range(batch)) for output in pipe.run()) / 1e6
            yield done

    return run
