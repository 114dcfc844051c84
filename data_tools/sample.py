"""Sample: one clip on disk, as consecutive members of a tar shard. THE contract between data tools and everything downstream."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

SCHEMA_VERSION = 2
KEY = re.compile(r"[0-9a-z_-]{1,90}")

# The members of a sample, in the order in which they stand in the tar. "mp4" is "png" where the clip is one image.
ORDER = ("json", "mask.png", "truth.png", "mp4", "png", "shape.npy")

Box = tuple[float, float, float, float]


class MaskStatistics(BaseModel):
    """What the pruning rules look at. Shares are in [0, 1]; foreground is a soft score above 0.7, the trimap's upper bound."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    foreground: tuple[float, ...]  # per frame: share of foreground pixels
    border: tuple[float, ...]  # per frame: share of foreground among the pixels within the 5 % border band
    uncertain: tuple[float, ...]  # per frame: share of pixels with 0.4 <= score <= 0.7
    flatness: float = 0.0  # mean over frames of the score's standard deviation; 0 means a mask that says nothing
    consistency: float = 0.0  # mean IoU of the foreground of neighbouring frames


class Metadata(BaseModel):
    """The `json` member. Spans are half-open frame ranges of the film; sizes are (height, width) in pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    film: str  # id of the film: the same for all its clips
    source: str  # path of the film, relative to the input folder
    id: str | None = None  # the user's own for the film, from a table of inputs
    shot: int  # which shot of the film, from 0
    span: tuple[int, int]  # frames [start, stop) of the film
    fps: tuple[int, int]  # numerator, denominator
    size: tuple[int, int]  # of the stored clip
    num_frames: int = Field(ge=1)  # T
    codec: Literal["vp9", "h264", "png"]
    group: str  # what a split must not cut apart: person, scene; the film id where nothing else is known
    split: str | None = None  # train, val, test, where the data set names it
    labels: dict[str, str] = {}  # name -> value; several per clip: motion, object, background, action ...
    masks: Literal["unlc", "given", "network", "combined", "none"] = "none"  # where `mask.png` comes from
    mask_size: tuple[int, int] | None = None
    boxes: tuple[Box | None, ...] = ()  # per frame: x0, y0, x1, y1 of score > 0.5, as shares of width and height
    keep: tuple[bool, ...] = ()  # per frame: would the pruning rules keep it
    verdict: tuple[str, ...] = ()  # why the clip as a whole would be pruned; empty: it would be kept
    statistics: MaskStatistics | None = None
    fingerprint: tuple[str, ...] = ()  # perceptual hashes of one frame a second, 16 hex digits each
    licence: str | None = None
    attribution: str | None = None
    versions: dict[str, str] = {}  # of the tools that made the sample; of a masks' network its file's sha256


@dataclass(frozen=True)
class Sample:
    """One clip.

    Attributes:
        key: content hash of (source bytes, span, settings), `[0-9a-z_-]{1,90}`.
        metadata: the `json` member.
        video: encoded clip, mp4 bytes (VP9 or H.264, square pixels, rotation baked in, constant frame rate, closed GOP, no audio);
            PNG bytes where T = 1.
        mask: uint8 (T, h, w), soft foreground score * 255; None where masks are off.
        truth: uint8 (T, h, w), true mask * 255; None where the data set has none.
    """

    key: str
    metadata: Metadata
    video: bytes
    mask: np.ndarray | None = None
    truth: np.ndarray | None = None

    def members(self) -> list[tuple[str, bytes]]:
        """(extension, bytes) in the contract's order. The bytes are a pure function of the sample."""
        if not KEY.fullmatch(self.key):
            raise ValueError(f"sample key {self.key!r} must match {KEY.pattern}")
        meta = self.metadata
        for name, masks in (("mask", self.mask), ("truth", self.truth)):
            if masks is not None and len(masks) != meta.num_frames:
                raise ValueError(f"{self.key}: {len(masks)} {name} frames for {meta.num_frames} video frames")
        out: dict[str, bytes] = {"json": meta.model_dump_json(exclude_none=True).encode()}
        if self.mask is not None:
            out["mask.png"] = strip_to_png(self.mask)
        if self.truth is not None:
            out["truth.png"] = strip_to_png(self.truth)
        out["png" if meta.codec == "png" else "mp4"] = self.video
        shaped = self.mask if self.mask is not None else self.truth
        height, width = shaped.shape[1:] if shaped is not None else (0, 0)
        shape = np.array([meta.num_frames, height, width, *meta.size, *meta.fps], dtype=np.int32)
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, shape, version=(1, 0))
        out["shape.npy"] = buffer.getvalue()
        return [(extension, out[extension]) for extension in ORDER if extension in out]

    @staticmethod
    def from_members(key: str, members: Mapping[str, bytes]) -> Sample:
        """The inverse of `members`.

        Raises:
            ValueError: a member is missing or does not follow the contract.
        """
        try:
            meta = Metadata.model_validate_json(members["json"])
            video = members["png" if meta.codec == "png" else "mp4"]
            shape = read_shape(members["shape.npy"])
            strips = {
                name: png_to_strip(members[f"{name}.png"], meta.num_frames) if f"{name}.png" in members else None
                for name in ("mask", "truth")
            }
        except KeyError as error:
            raise ValueError(f"{key}: member {error} is missing") from None
        except (ValidationError, OSError, EOFError, SyntaxError) as error:  # the last two: a cut .npy, a broken PNG
            raise ValueError(f"{key}: {' '.join(str(error).split())}") from None
        if shape[0] != meta.num_frames or tuple(shape[3:5]) != meta.size:
            raise ValueError(f"{key}: shape.npy says {shape.tolist()}, json says T={meta.num_frames}, size={meta.size}")
        return Sample(key, meta, video, strips["mask"], strips["truth"])


def strip_to_png(frames: np.ndarray) -> bytes:
    """uint8 (T, h, w) -> 8-bit grey PNG of T frames stacked vertically, (T*h) x w."""
    if frames.dtype != np.uint8 or frames.ndim != 3:
        raise ValueError(f"expected uint8 (T, h, w), got {frames.dtype} {frames.shape}")
    buffer = io.BytesIO()
    Image.fromarray(frames.reshape(-1, frames.shape[2])).save(buffer, format="PNG", compress_level=6)
    return buffer.getvalue()


def png_to_strip(data: bytes, num_frames: int) -> np.ndarray:
    """The inverse of `strip_to_png`: uint8 (T, h, w)."""
    strip = np.asarray(Image.open(io.BytesIO(data)).convert("L"))
    if strip.shape[0] % num_frames:
        raise ValueError(f"a strip of {strip.shape[0]} rows does not hold {num_frames} frames")
    return strip.reshape(num_frames, -1, strip.shape[1])


def read_shape(data: bytes) -> np.ndarray:
    """The `shape.npy` member: int32 [T, h_mask, w_mask, H, W, fps_num, fps_den]."""
    shape = np.load(io.BytesIO(data), allow_pickle=False)
    if shape.dtype != np.int32 or shape.shape != (7,):
        raise ValueError(f"shape.npy holds {shape.dtype} {shape.shape}, expected int32 (7,)")
    return shape
