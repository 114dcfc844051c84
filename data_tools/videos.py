"""Read and write films with PyAV: probe, decode at a constant frame rate as upright square-pixel RGB, encode clips in memory."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import Interpolation, VideoReformatter
from jaxtyping import UInt8
from PIL import Image

from data_tools.rates import BestTimes, Clock, constant_rate

Codec = Literal["vp9", "h264"]

MAX_STRETCH = 4  # a pixel aspect ratio beyond 1:4 is a broken header
MAX_PIXELS = 1 << 26  # of one frame (8192 x 8192): more is a bomb or a broken header

# One thread and no look-ahead: the bytes are a function of the frames. crf at a rate of 0 is constant quality.
ENCODERS: dict[str, tuple[str, dict[str, str]]] = {
    "vp9": (
        "libvpx-vp9",
        {
            "deadline": "realtime",
            "cpu-used": "7",
            "crf": "24",
            "b": "0",
            "lag-in-frames": "0",
            "auto-alt-ref": "0",
            "row-mt": "0",
            "tile-columns": "0",
            "threads": "1",
        },
    ),
    "h264": (
        "libx264",
        {
            "preset": "veryfast",
            "crf": "20",
            "threads": "1",
            "x264-params": "open-gop=0:scenecut=0:bframes=0:threads=1:mbtree=0",
        },
    ),
}


class Unusable(ValueError):  # noqa: N818  # it is a verdict on a film, no failure of ours
    """A film that cannot be used. Its text is the reason, for the ledger and the user."""


@dataclass(frozen=True)
class Probe:
    """What a film is, before its frames are decoded. Sizes are (height, width) as shown: upright, square pixels."""

    size: tuple[int, int]
    fps: tuple[int, int]
    num_packets: int
    codec: str
    variable_rate: bool = False
    steady: bool = True  # every frame as it comes is the constant rate already


@dataclass
class Damage:
    """What `decode` had to skip or mend; filled while it runs."""

    packets: int = 0  # packets that the decoder refused
    gaps: int = 0  # jumps in the timestamps that were closed
    demux: str = ""  # why reading ended before the file's end

    def notes(self) -> list[str]:
        """One clause for each kind of damage."""
        found = [f"{self.packets} damaged packets skipped"] if self.packets else []
        found += [f"{self.gaps} jumps in the timestamps closed"] if self.gaps else []
        return found + ([f"reading ended early: {self.demux}"] if self.demux else [])


@dataclass(frozen=True)
class Frame:
    """One decoded frame: `source` is its index among the film's own frames, before a constant rate was made."""

    image: UInt8[np.ndarray, "h w 3"]
    source: int
    shown: tuple[int, int]  # its height and width before it was scaled
    cut: bool = False  # it does not follow the frame before: a jump in time, a lost frame, another picture size


def encode(frames: UInt8[np.ndarray, "t h w 3"], fps: tuple[int, int], codec: Codec = "vp9", gop: int = 32) -> bytes:
    """RGB frames -> mp4 bytes: yuv420p (BT.601), constant frame rate, closed groups of `gop` frames, no audio.

    Args:
        frames: uint8 RGB, even height and width.
        fps: numerator and denominator of the frame rate.
        codec: vp9 (DALI decodes it on CPU and GPU) or h264.
        gop: frames between two key frames.
    Raises:
        ValueError: odd sizes, no frames, wrong type.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not len(frames):
        raise ValueError(f"expected uint8 frames (T, H, W, 3), got {frames.dtype} {frames.shape}")
    height, width = frames.shape[1:3]
    if height % 2 or width % 2:
        raise ValueError(f"frames of {height}x{width} px: both sides must be even")
    name, options = ENCODERS[codec]
    buffer = io.BytesIO()
    # bitexact: no version strings and dates in the file
    with av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream: Any = container.add_stream(name, rate=Fraction(*fps), options=options | {"flags": "+bitexact"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.gop_size = gop
        time_base = Fraction(fps[1], fps[0])
        stream.codec_context.time_base = time_base
        stream.codec_context.colorspace = 6  # SMPTE 170M, what swscale writes
        stream.codec_context.color_range = 1  # limited
        convert = VideoReformatter()
        for i, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame = convert.reformat(frame, format="yuv420p", dst_colorspace=5, dst_color_range=1, threads=1)
            frame.pts, frame.time_base = i, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


def encode_image(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """One RGB frame -> PNG bytes, for clips of one frame."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", compress_level=6)
    return buffer.getvalue()


def decode_image(data: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """The inverse of `encode_image`."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def decode_clip(data: bytes) -> UInt8[np.ndarray, "t h w 3"]:
    """All frames of a stored clip (mp4 bytes, or PNG bytes of one frame), exactly as stored: no rate is changed.

    Raises:
        Unusable: the bytes hold no frame.
    """
    if data.startswith(b"\x89PNG"):
        return decode_image(data)[None]
    try:
        with av.open(io.BytesIO(data), "r") as container:
            convert = VideoReformatter()
            frames = [
                convert.reformat(frame, format="rgb24", threads=1).to_ndarray() for frame in container.decode(video=0)
            ]
    except (FFmpegError, IndexError, ValueError) as error:
        raise Unusable(_reason(error)) from None
    if not frames:
        raise Unusable("the video stream holds no frame")
    return np.stack(frames)


def probe(source: Path | bytes) -> Probe:
    """Demux a film once (without decoding more than its first frame) for its size as shown and its constant rate.

    Raises:
        Unusable: no video stream, nothing decodable, absurd sizes; the text is the reason.
    """
    times: list[float] = []
    try:
        with _open(source) as container:
            stream = _video_stream(container)
            stated = stream.average_rate or stream.guessed_rate
            codec = stream.codec_context.name if stream.codec_context else "unknown"
            num_packets, second = 0, 0.0
            try:
                for packet in container.demux(stream):
                    num_packets += packet.size > 0
                    if packet.size and packet.pts is not None:
                        second = second or float(packet.time_base or 0)
                        times += [packet.pts * second] if second else []
            except FFmpegError:
                pass  # `decode` meets the same place and says so
    except FFmpegError as error:
        raise Unusable(_reason(error)) from None
    if not num_packets:
        raise Unusable("the video stream holds no frame")
    rate = constant_rate(times, stated)
    first = next(decode(source), None)
    if first is None:
        raise Unusable("the video stream yields no frame that can be decoded")
    height, width = first.image.shape[:2]
    fps = (rate.fps.numerator, rate.fps.denominator)
    return Probe((height, width), fps, num_packets, codec, rate.variable, rate.steady)


def decode(
    source: Path | bytes,
    fps: tuple[int, int] | None = None,
    size_of: Callable[[int, int], tuple[int, int]] | None = None,
    damage: Damage | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[Frame]:
    """Stream a film's frames: upright, square pixels, RGB, one for each 1/fps seconds.

    Args:
        source: path of a film, or its bytes.
        fps: constant rate to make from the timestamps (frames are repeated or left out); None: every frame as it comes.
        size_of: (height, width) as shown -> (height, width) wanted; called again where the stream changes size.
        damage: filled with what was skipped or mended.
        max_pixels: of a frame, before it is scaled.
    Raises:
        Unusable: a frame is too large, or the file cannot be opened or has no video stream. Damage further on thins the stream instead.
    """
    damage = damage if damage is not None else Damage()
    try:
        with _open(source) as container:
            frames = _upright_frames(container, size_of, damage, max_pixels)
            if fps is None:
                yield from (frame for frame, _ in frames)
            else:
                yield from _at_constant_rate(frames, Clock(Fraction(*fps)), damage)
    except FFmpegError as error:
        raise Unusable(_reason(error)) from None


def _at_constant_rate(frames: Iterator[tuple[Frame, float | None]], clock: Clock, damage: Damage) -> Iterator[Frame]:
    held: Frame | None = None
    for frame, time in frames:
        filled, bridged = clock.advance(time)
        damage.gaps = clock.gaps
        for _ in range(filled):
            assert held is not None, "the first frame has no slot before it"
            yield held
            held = replace(held, cut=False)
        lost_cut = held is not None and held.cut and not filled  # its frame never stood: the cut moves on
        held = replace(frame, cut=frame.cut or bridged or lost_cut)
    if held is not None:
        yield held


def _upright_frames(
    container: Any, size_of: Callable[[int, int], tuple[int, int]] | None, damage: Damage, max_pixels: int
) -> Iterator[tuple[Frame, float | None]]:
    """Frames as shown, with their times in seconds."""
    stream = _video_stream(container)
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > max_pixels:
        raise Unusable(f"frames of {width}x{height} px; max_pixels is {max_pixels}")
    stream.codec_context.options = {"max_pixels": str(max_pixels)}  # FFmpeg allocates no larger frame
    size: tuple[int, int] | None = None
    best, second = BestTimes(), 0.0
    convert = (
        VideoReformatter()
    )  # kept, and without threads: of small frames four times as fast as a fresh one with them
    for number, raw in enumerate(_raw_frames(container, stream, damage)):
        if raw.width < 1 or raw.height < 1 or raw.width * raw.height > max_pixels:
            raise Unusable(f"frames of {raw.width}x{raw.height} px; max_pixels is {max_pixels}")
        cut = size is not None and size != (raw.height, raw.width)
        size = (raw.height, raw.width)
        ticks = best.choose(raw.pts, raw.dts)
        second = second or float(raw.time_base or 0)  # asked once: it costs more than a small frame's colours
        time = ticks * second if ticks is not None and second else None
        aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or Fraction(1)
        turns = round(raw.rotation / 90) % 4 if abs(raw.rotation) <= 360 else 0  # a broken matrix reports -2147483648
        shown = _shown(raw, aspect, turns)
        yield Frame(_upright(convert, raw, turns, size_of(*shown) if size_of else shown), number, shown, cut), time


def _open(source: Path | bytes) -> Any:
    try:
        if isinstance(source, bytes):
            return av.open(io.BytesIO(source), metadata_errors="ignore")
        if source.stat().st_size == 0:
            raise Unusable("the file is empty (0 bytes)")
        # file: a name with a colon is no protocol; a playlist inside a film must not open anything but files
        return av.open(f"file:{source}", metadata_errors="ignore", options={"protocol_whitelist": "file"})
    except (FFmpegError, OSError) as error:
        raise Unusable(f"cannot be opened: {_reason(error)}") from None


def _video_stream(container: Any) -> Any:
    # a cover picture in a music file is a video stream of one frame to FFmpeg
    streams = [s for s in container.streams.video if not (s.disposition & av.stream.Disposition.attached_pic)]
    if not streams:
        kinds = sorted({s.type for s in container.streams if s.type})
        raise Unusable(f"no video stream (only {', '.join(kinds)})" if kinds else "no video stream")
    if streams[0].codec_context is None:
        raise Unusable("no decoder for the video stream's codec")
    return streams[0]


def _raw_frames(container: Any, stream: Any, damage: Damage) -> Iterator[Any]:
    """Frames of the video stream; a refused packet is counted and skipped."""
    stream.thread_type = "NONE"  # films are decoded side by side; two threads in one film only cost
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, EOFError):
            return
        except FFmpegError as error:
            damage.demux = _reason(error)
            return
        try:
            yield from packet.decode()
        except FFmpegError:
            damage.packets += 1


def _shown(raw: Any, aspect: Fraction, turns: int) -> tuple[int, int]:
    """(height, width) of a decoded frame with its pixels squared and turned upright."""
    height, width = raw.height, raw.width
    if Fraction(1, MAX_STRETCH) <= aspect <= MAX_STRETCH:
        width = max(1, round(width * aspect))
    return (width, height) if turns % 2 else (height, width)


def _upright(convert: VideoReformatter, raw: Any, turns: int, size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    """A decoded frame as RGB of (height, width) `size`, after so many quarter turns."""
    height, width = size[::-1] if turns % 2 else size
    image = convert.reformat(raw, width, height, "rgb24", interpolation=Interpolation.BICUBIC, threads=1).to_ndarray()
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())
