"""decord called directly, which resizes as it decodes."""

from __future__ import annotations

import io

import numpy as np

from benchmarks.readers.measuring import Decode


def variants() -> dict[str, Decode]:
    """The one way.

    Raises:
        ImportError: it is not installed.
    """
    import decord

    def decode(data: bytes, first: int, frames: int, side: int) -> np.ndarray:
        video = decord.VideoReader(io.BytesIO(data), ctx=decord.cpu(0), width=side, height=side, num_threads=1)
        return video.get_batch(range(first, first + frames)).asnumpy()

    return {"decord": decode}
