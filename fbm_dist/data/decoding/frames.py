"""Chosen frames of stored clips as squares, decoded by PyAV (FFmpeg) in reader processes. Imports no torch."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from typing import Any, NamedTuple, TypeVar

import av
import numpy as np
from av.codec.codec import UnknownCodecError
from av.container import InputContainer
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from jaxtyping import UInt8

from data_tools.videos import decode_image
from fbm_dist.data.decoding.mp4 import ForeignLayoutError, SampleTable, sample_table
from fbm_dist.data.decoding.region import Region

Key = TypeVar("Key")
Value = TypeVar("Value")

KEPT = 32  # decoders and tables of conversion that a process keeps: data sets have few sizes

# libvpx decodes small VP9 a little faster than FFmpeg's own decoder; the pixels are the same.
DECODERS = {"vp9": ("libvpx-vp9", "vp9"), "h264": ("h264",)}

# One step from the decoder's frame to the square. Chroma is upsampled linearly and rounded exactly, as DALI's CPU decoder does (the same
# pixels, bit for bit, where nothing is resized); FFmpeg's own default repeats chroma samples and darkens by a level.
# A plane for each colour: the same pixels as interleaved ones, in half the time.
PLANES, CHANNELS = "gbrp", (1, 2, 0)
CHROMA = (
    Interpolation.BILINEAR | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP | Interpolation.ACCURATE_RND
)


class UndecodableError(ValueError):
    """A clip whose bytes do not give the frames that the index promises. Its text is the reason."""


class Stored(NamedTuple):
    """What the index says of a clip."""

    codec: str  # vp9, h264 or png
    height: int
    width: int
    fps: tuple[int, int]  # numerator and denominator; frames stand exactly 1/fps apart


class FrameReader:
    """Decodes one clip after another, and keeps decoders and tables of conversion from one to the next."""

    def __init__(self) -> None:
        self._decoders: OrderedDict[tuple[str, int, int, bytes], VideoCodecContext] = OrderedDict()
        self._converters: OrderedDict[tuple[int, int], VideoReformatter] = OrderedDict()

    def read(
        self,
        data: bytes,
        frames: Sequence[int],
        stored: Stored,
        into: Sequence[UInt8[np.ndarray, "3 side side"]],
        region: Region | None = None,
    ) -> None:
        """Fill `into` with RGB frames, resized to its side.

        Args:
            data: mp4 bytes, or PNG bytes where the codec is png.
            frames: indices within the clip, ascending, no two alike.
            region: what fills the square; None: the whole frame.
        Raises:
            UndecodableError: damaged bytes, too few frames, another size.
        """
        found = 0
        try:
            for frame in self._frames(data, frames, stored):
                if (frame.height, frame.width) != (stored.height, stored.width):
                    size = (stored.height, stored.width)
                    raise UndecodableError(f"the frames are {(frame.height, frame.width)}, the index says {size}")
                self._convert(frame, region, into[found])
                found += 1
        except (FFmpegError, OSError, IndexError, SyntaxError) as error:  # Pillow raises SyntaxError on bad PNGs
            self._decoders.clear()
            raise UndecodableError(f"{type(error).__name__}: {' '.join(str(error).split())}") from None
        if found < len(frames):
            raise UndecodableError(f"{found} of the frames {frames[0]} to {frames[-1]} could be decoded")

    def _frames(self, data: bytes, frames: Sequence[int], stored: Stored) -> Iterator[VideoFrame]:
        """The wanted frames, in order; fewer where the clip ends before."""
        if stored.codec == "png":
            yield VideoFrame.from_ndarray(np.ascontiguousarray(decode_image(data)), "rgb24")
            return
        try:
            table = sample_table(data)
        except ForeignLayoutError:
            yield from _by_demuxer(data, frames, stored.fps)
            return
        for key, group in groupby(frames, lambda frame: table.keys[bisect_right(table.keys, frame) - 1]):
            yield from self._group(data, table, key, list(group), stored)

    def _group(
        self, data: bytes, table: SampleTable, key: int, frames: list[int], stored: Stored
    ) -> Iterator[VideoFrame]:
        """Frames that hang on one key frame: decoded from there up to the last of them."""
        decoder = self._decoder(stored, table.setup)
        wanted = set(frames)
        for number in range(key, min(frames[-1] + 1, len(table.size))):
            start = table.offset[number]
            packet = av.Packet(data[start : start + table.size[number]])
            packet.pts = number
            for frame in decoder.decode(packet):
                if frame.pts in wanted:
                    wanted.discard(frame.pts)
                    yield frame
        if wanted:  # some decoders give a frame when they have the next
            for frame in decoder.decode(None):
                if frame.pts in wanted:
                    yield frame

    def _decoder(self, stored: Stored, setup: bytes) -> VideoCodecContext:
        kind = (stored.codec, stored.height, stored.width, setup)

        def make() -> VideoCodecContext:
            decoder = av.CodecContext.create(_available(DECODERS[stored.codec]), "r")
            assert isinstance(decoder, VideoCodecContext)
            decoder.thread_type = "NONE"  # reader processes work side by side; two threads in one clip only cost
            decoder.thread_count = 1
            if setup:
                decoder.extradata = setup
            return decoder

        new = kind not in self._decoders
        decoder = _kept(self._decoders, kind, make)
        if not new:
            decoder.flush_buffers()
        return decoder

    def _convert(self, frame: VideoFrame, region: Region | None, into: np.ndarray) -> None:
        side = into.shape[-1]
        if region is not None:
            frame = _cut(frame, region)
        convert = _kept(self._converters, (frame.height, frame.width), VideoReformatter)
        square = convert.reformat(frame, side, side, format=PLANES, interpolation=CHROMA, threads=1)
        for channel, plane in zip(CHANNELS, square.planes, strict=True):
            into[channel] = np.frombuffer(memoryview(plane), np.uint8).reshape(side, plane.line_size)[:, :side]


def _available(names: Sequence[str]) -> str:
    """The first decoder that this FFmpeg has."""
    for name in names[:-1]:
        with suppress(UnknownCodecError):
            av.Codec(name, "r")
            return name
    return names[-1]


def _kept(kept: OrderedDict[Key, Value], key: Key, make: Callable[[], Value]) -> Value:
    """The value of that key; the last ones asked for are kept."""
    if key not in kept:
        if len(kept) >= KEPT:
            kept.popitem(last=False)
        kept[key] = make()
    kept.move_to_end(key)
    return kept[key]


def _cut(frame: VideoFrame, region: Region) -> VideoFrame:
    """A part of a frame as a frame of its own."""
    y0, x0, y1, x1 = region
    if frame.format.name == "rgb24":
        picture: Any = frame.to_ndarray()
        return VideoFrame.from_ndarray(np.ascontiguousarray(picture[y0:y1, x0:x1]), "rgb24")
    if frame.format.name != "yuv420p":
        raise UndecodableError(f"its pixels are {frame.format.name}; clips are stored as yuv420p")
    part = VideoFrame(x1 - x0, y1 - y0, "yuv420p")
    part.colorspace, part.color_range = frame.colorspace, frame.color_range
    for number, (whole, cut) in enumerate(zip(frame.planes, part.planes, strict=True)):
        half = min(number, 1)  # colours have half the width and height
        theirs = np.frombuffer(memoryview(whole), np.uint8).reshape(-1, whole.line_size)
        ours = np.frombuffer(memoryview(cut), np.uint8).reshape(-1, cut.line_size)
        ours[: cut.height, : cut.width] = theirs[y0 >> half : y1 >> half, x0 >> half : x1 >> half]
    return part


def _by_demuxer(data: bytes, frames: Sequence[int], fps: tuple[int, int]) -> Iterator[VideoFrame]:
    """For clips that other tools wrote: from the key frame at or before the first wanted frame up to the last."""
    wanted = set(frames)
    with av.open(io.BytesIO(data), metadata_errors="ignore") as container:
        stream = container.streams.video[0]
        assert isinstance(container, InputContainer)
        assert stream.time_base is not None
        stream.thread_type = "NONE"
        origin = stream.start_time or 0
        step = fps[1] / fps[0] / stream.time_base  # ticks from frame to frame
        if frames[0]:
            container.seek(origin + int(frames[0] * step), stream=stream)
        for frame in container.decode(stream):
            number = round((frame.pts - origin) / step) if frame.pts is not None else -1
            if number in wanted:
                yield frame
            if number >= frames[-1]:
                break
