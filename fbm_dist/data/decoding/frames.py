"""Chosen frames of one stored clip, decoded by PyAV (FFmpeg): for codecs that DALI does not decode on a CPU. Imports no torch."""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.reformatter import Interpolation, VideoReformatter
from jaxtyping import UInt8

from data_tools.videos import decode_image

NVDEC_VP9_SIDE = 128  # pixels; NVDEC takes no smaller VP9

# Chroma is upsampled linearly and rounded exactly, as DALI's CPU decoder does: the same pixels, bit for bit.
# FFmpeg's own default repeats chroma samples and is off by 3 levels on average, by 40 at coloured edges.
CHROMA = (
    Interpolation.BILINEAR | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP | Interpolation.ACCURATE_RND
)


class UndecodableError(ValueError):
    """A clip whose bytes do not give the frames that the index promises. Its text is the reason."""


def choose(wanted: str, device: str, codecs: Collection[str], smallest: int) -> str:
    """Which decoder reads clips of these codecs: dali-mixed (NVDEC), dali-cpu or pyav.

    Args:
        wanted: data.decode: auto, dali or pyav.
        device: type of the trainer's device, cpu or cuda.
        smallest: the shortest side of any clip, in pixels.
    Raises:
        ValueError: `wanted` is dali, and DALI does not decode these clips there.
    """
    if wanted == "pyav":
        return "pyav"
    on_cpu = set(codecs) == {"vp9"}
    on_gpu = device == "cuda" and "png" not in codecs and ("vp9" not in codecs or smallest >= NVDEC_VP9_SIDE)
    if on_gpu:
        return "dali-mixed"
    if on_cpu:
        return "dali-cpu"
    if wanted == "dali":
        raise ValueError(
            f"data.decode=dali: DALI's video decoder takes no {'/'.join(sorted(set(codecs) - {'vp9'}))} clips on "
            f"device {device}; set data.decode=auto, or prepare the data set with codec=vp9"
        )
    return "pyav"


def frames_of(
    data: bytes, frames: Sequence[int], size: tuple[int, int], fps: tuple[int, int], codec: str
) -> UInt8[np.ndarray, "t h w 3"]:
    """RGB frames of a stored clip.

    Args:
        data: mp4 bytes, or PNG bytes where `codec` is png.
        frames: indices within the clip, ascending.
        size: (height, width) that the index states.
        fps: of the clip, numerator and denominator; its frames stand exactly 1/fps apart.
        codec: vp9, h264 or png.
    Raises:
        UndecodableError: damaged bytes, too few frames, another size.
    """
    try:
        images = [decode_image(data)] if codec == "png" else _from_video(data, frames, fps)
    except (
        FFmpegError,
        OSError,
        ValueError,
        IndexError,
        SyntaxError,
    ) as error:  # Pillow raises SyntaxError on bad PNGs
        raise UndecodableError(f"{type(error).__name__}: {' '.join(str(error).split())}") from None
    if len(images) < len(frames):
        raise UndecodableError(f"{len(images)} of the frames {frames[0]} to {frames[-1]} could be decoded")
    if images[0].shape != (*size, 3):
        raise UndecodableError(f"the frames are {images[0].shape[:2]}, the index says {size}")
    return np.stack(images)


def _from_video(data: bytes, frames: Sequence[int], fps: tuple[int, int]) -> list[np.ndarray]:
    """Decode from the key frame at or before the first wanted frame up to the last; convert the wanted ones alone."""
    wanted = set(frames)
    images = []
    convert = VideoReformatter()  # keeps its tables from frame to frame
    with av.open(io.BytesIO(data), metadata_errors="ignore") as container:
        stream = container.streams.video[0]
        assert isinstance(container, InputContainer)
        assert stream.time_base is not None
        stream.thread_type = "NONE"  # reader processes work side by side; two threads in one clip only cost
        origin = stream.start_time or 0
        step = fps[1] / fps[0] / stream.time_base  # ticks from frame to frame
        if frames[0]:
            container.seek(origin + int(frames[0] * step), stream=stream)
        for frame in container.decode(stream):
            number = round((frame.pts - origin) / step) if frame.pts is not None else -1
            if number in wanted:
                images.append(convert.reformat(frame, format="rgb24", interpolation=CHROMA, threads=1).to_ndarray())
            if number >= frames[-1]:
                break
    return images
