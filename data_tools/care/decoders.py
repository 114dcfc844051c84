"""Every decoder that may meet a clip: mp4 or PNG bytes -> frames. Those that cannot be loaded here are left out, with a remark."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8

from data_tools.places import line
from data_tools.videos import Unusable, decode_clip, encode

NAMES = ("pyav", "dali", "opencv", "torchcodec", "decord")
REFERENCE = "pyav"  # the others are compared with it
STRANGERS = ("torchcodec", "decord")  # no dependencies of this project: nobody misses them
SAME_PICTURE = 6.0  # mean absolute difference of two decoders' frames, in grey levels: chroma is upsampled differently
MOST_BYTES = 2 << 30  # of a clip's frames; 4096 frames of 128 x 228 px need a sixth
FILMS = frozenset({"vp9", "h264"})

Frames = UInt8[np.ndarray, "t h w 3"]
Decode = Callable[[bytes], Frames]


@dataclass(frozen=True)
class Decoder:
    """One way to decode a clip.

    Attributes:
        title: its name as people write it.
        codecs: of the clips that it takes here, without a GPU.
        decode: bytes of a clip -> uint8 (T, H, W, 3) RGB; raises whatever the library raises.
    """

    title: str
    codecs: frozenset[str]
    decode: Decode


def available(names: Sequence[str] | None = None) -> tuple[list[Decoder], list[str]]:
    """The decoders of those names that work here, PyAV first and always; and a remark for each that does not.

    Args:
        names: of `NAMES`; None: all, and those that are no dependencies are not missed.
    """
    found, remarks = [Decoder("PyAV", FILMS | {"png"}, decode_clip)], []
    trial = encode(np.zeros((2, 128, 128, 3), dtype=np.uint8), (25, 1))
    for name in NAMES[1:] if names is None else [n for n in NAMES[1:] if n in names]:
        title, codecs, make = MAKERS[name]
        try:
            decode = make()
            decode(trial)  # some load their libraries no sooner
        except Exception as error:  # a missing or broken library says so in many ways
            if names is None and name in STRANGERS and isinstance(error, ModuleNotFoundError):
                continue
            remarks.append(f"{title} does not work here ({line(error)[:120]}): clips are decoded without it")
        else:
            found.append(Decoder(title, codecs, decode))
    return found, remarks


def within_bounds(video: bytes) -> None:
    """Refuse a clip whose header promises more than any clip of ours has, before it is decoded.

    Raises:
        Unusable: it would need more than `MOST_BYTES`.
    """
    import av

    if video.startswith(b"\x89PNG"):
        return  # Pillow has a limit of its own
    try:
        with av.open(io.BytesIO(video), "r") as container:
            stream = container.streams.video[0]
            frames = sum(packet.size > 0 for packet in container.demux(stream))
            height, width = stream.height, stream.width
    except (av.FFmpegError, IndexError, ValueError, AttributeError):  # the last: no decoder for its codec
        return  # the decoders say so
    if frames * height * width * 3 > MOST_BYTES:
        raise Unusable(f"{frames} frames of {height}x{width} px are too many for a clip")


class _Dali:
    """DALI's decoder on CPU, one clip at a time."""

    def __init__(self) -> None:
        from nvidia.dali import fn, pipeline

        self._fn, self._pipeline = fn, pipeline.Pipeline
        self._pipe: Any = None

    def __call__(self, video: bytes) -> Frames:
        if self._pipe is None:
            self._pipe = self._pipeline(batch_size=1, num_threads=1, device_id=None, prefetch_queue_depth=1)
            with self._pipe:
                self._pipe.set_outputs(self._fn.decoders.video(self._fn.external_source(name="clip"), device="cpu"))
            self._pipe.build()
        try:
            self._pipe.feed_input("clip", [np.frombuffer(video, dtype=np.uint8)])
            return np.array(self._pipe.run()[0].at(0))
        except Exception as error:
            self._pipe = None  # after an error it gives no more clips
            reason = str(error).partition("encountered:")[2].strip()  # what stands before names operators
            raise Unusable(reason.splitlines()[0] if reason else line(error)) from None


def _opencv() -> Decode:
    import cv2

    def decode(video: bytes) -> Frames:
        if video.startswith(b"\x89PNG"):
            image = cv2.imdecode(np.frombuffer(video, dtype=np.uint8), cv2.IMREAD_COLOR)
            frames = [] if image is None else [image]
        else:
            with tempfile.NamedTemporaryFile(suffix=".mp4") as file:  # it reads files alone
                file.write(video)
                file.flush()
                frames = list(_captured(cv2.VideoCapture(file.name, cv2.CAP_FFMPEG)))
        if not frames:
            raise Unusable("it yields no frame")
        return np.ascontiguousarray(np.stack(frames)[..., ::-1])

    return decode


def _captured(capture: Any) -> Any:
    try:
        while True:
            good, image = capture.read()
            if not good:
                return
            yield image
    finally:
        capture.release()


def _torchcodec() -> Decode:
    from torchcodec.decoders import VideoDecoder

    def decode(video: bytes) -> Frames:
        return np.ascontiguousarray(VideoDecoder(video, dimension_order="NHWC", num_ffmpeg_threads=1)[:].numpy())

    return decode


def _decord() -> Decode:
    import decord

    def decode(video: bytes) -> Frames:
        reader = decord.VideoReader(io.BytesIO(video), ctx=decord.cpu(0), num_threads=1)
        return reader.get_batch(range(len(reader))).asnumpy()

    return decode


MAKERS: dict[str, tuple[str, frozenset[str], Callable[[], Decode]]] = {
    "dali": ("DALI", frozenset({"vp9"}), _Dali),  # H.264 needs a GPU there
    "opencv": ("OpenCV", FILMS | {"png"}, _opencv),
    "torchcodec": ("TorchCodec", FILMS, _torchcodec),
    "decord": ("Decord", FILMS, _decord),
}
