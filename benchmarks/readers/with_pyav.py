"""PyAV called directly: from the key frame at or before the first frame to the last, converted and resized in one step."""

from __future__ import annotations

import io

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import Interpolation, VideoReformatter

from benchmarks.readers.measuring import Decode


def variants() -> dict[str, Decode]:
    """Each interpolation that is worth a try; what differs is how fast swscale resizes."""
    return {
        "PyAV, default": decoder(None),
        "PyAV, fast bilinear": decoder(Interpolation.FAST_BILINEAR),
        "PyAV, area": decoder(Interpolation.AREA),
    }


def decoder(interpolation: Interpolation | None = None) -> Decode:
    """A function that decodes with this interpolation, and keeps swscale's tables from clip to clip."""
    convert = VideoReformatter()

    def decode(data: bytes, first: int, frames: int, side: int) -> np.ndarray:
        images: list[np.ndarray] = []
        with av.open(io.BytesIO(data), format="mp4", metadata_errors="ignore") as container:
            stream = container.streams.video[0]
            assert isinstance(container, InputContainer)
            stream.thread_type = "NONE"  # one clip a core; threads within a clip only cost
            assert stream.average_rate is not None
            assert stream.time_base is not None
            step = 1 / stream.average_rate / stream.time_base  # ticks from frame to frame
            origin = stream.start_time or 0
            if first:
                container.seek(origin + int(first * step), stream=stream)
            for frame in container.decode(stream):
                if frame.pts is None or round((frame.pts - origin) / step) < first:
                    continue
                shown = convert.reformat(frame, side, side, format="rgb24", interpolation=interpolation, threads=1)
                images.append(shown.to_ndarray())
                if len(images) == frames:
                    break
        return np.stack(images)

    return decode
