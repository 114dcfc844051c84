"""A clip as a figure of a page: what is known about it, its frames with the masks on them, the foreground of each frame, itself moving."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from PIL import Image

from data_tools.places import Place
from data_tools.report.names import percent, short, shown
from data_tools.report.pages.charts import profile
from data_tools.report.pages.contact_sheet import pictures, spread, strip
from data_tools.sample import Metadata, Sample
from data_tools.shards import read_sample
from data_tools.videos import decode_clip

QUALITY, MOVING_QUALITY = 72, 50  # of WebP
MOVING_FRAMES = 32  # of a clip that moves, at most: every second frame of a longer one, and so on


@dataclass(frozen=True)
class Card:
    """A clip on a page.

    Attributes:
        head: facts, as HTML.
        still: its frames side by side as WebP; `moving`: itself as animated WebP. Empty where it cannot be read.
        foot: the foreground of each frame, as HTML.
        aspects: width over height of both pictures.
    """

    head: str
    still: bytes = b""
    moving: bytes = b""
    foot: str = ""
    aspects: tuple[float, float] = (1.0, 1.0)

    def html(self, moves: bool) -> str:
        """The figure; with or without the clip that moves."""
        if not self.still:
            return f'<figure class="clip"><figcaption>{self.head}</figcaption></figure>'
        parts = ((self.moving, "moving", self.aspects[1]),) if moves and self.moving else ()
        film = "".join(
            f'<div class="{name}" style="flex:{aspect:.4f} 1 0">{picture(data)}</div>'
            for data, name, aspect in (*parts, (self.still, "still", self.aspects[0]))
        )
        body = f'<div class="body"><div class="film">{film}</div>{self.foot}</div>'
        return f'<figure class="clip"><figcaption>{self.head}</figcaption>{body}</figure>'

    def size(self, moves: bool) -> int:
        """Bytes of `html`, but for a few."""
        return (len(self.still) + (len(self.moving) if moves else 0)) * 4 // 3 + len(self.head) + len(self.foot)


def card(root: Place, row: Mapping[str, Any], frames: int, height: int) -> Card:
    """The figure of the clip of a manifest row: `frames` pictures of that height in pixels. One that cannot be read says so."""
    try:
        sample = read_sample(root, row)
        video = decode_clip(sample.video)
    except (ValueError, OSError) as error:
        return Card(f'<b>{escape(row["key"][:10])}</b><span class="no">{escape(shown(str(error)))}</span>')
    still = strip(pictures(sample, video, spread(len(video), frames).tolist(), height))
    meta = sample.metadata
    foot = profile(meta.statistics.foreground, meta.keep) if meta.statistics and meta.statistics.foreground else ""
    moving = _moving(sample, video, height) if len(video) > 1 else b""
    aspects = still.shape[1] / still.shape[0], video.shape[2] / video.shape[1]
    return Card(facts(sample.key, meta), webp([still], QUALITY), moving, foot, aspects)


def first_frame(root: Place, row: Mapping[str, Any], height: int) -> bytes:
    """The first frame of a clip as WebP, without its mask; empty where it cannot be read."""
    try:
        sample = read_sample(root, row)
        video = decode_clip(sample.video)
    except (ValueError, OSError):
        return b""
    bare = Sample(sample.key, sample.metadata, sample.video)
    return webp(pictures(bare, video, [0], height), QUALITY)


def facts(key: str, meta: Metadata) -> str:
    """What is known about a clip, as HTML."""
    rate = short(round(meta.fps[0] / meta.fps[1], 2))
    parts = [
        f"shot {meta.shot}, frames {meta.span[0]} to {meta.span[1]}",
        f"{meta.size[1]}×{meta.size[0]}, {rate} frames/s",
    ]
    parts += [f"{name}: {value}" for name, value in meta.labels.items()]
    parts += [meta.split] if meta.split else []
    if meta.statistics and meta.statistics.foreground:
        parts.append(f"foreground {percent(float(np.mean(meta.statistics.foreground)))}")
    else:
        parts.append(f"masks: {meta.masks}")
    found = f"<b><bdi>{escape(shown(meta.source))}</bdi></b>"
    found += "".join(f"<span><bdi>{escape(shown(part))}</bdi></span>" for part in parts)
    if meta.verdict:
        found += f'<span class="no">not kept: {escape(", ".join(meta.verdict))}</span>'
    return found + f"<span><code>{escape(key[:10])}</code></span>"


def picture(data: bytes) -> str:
    """A WebP as an HTML image that needs no file."""
    with Image.open(io.BytesIO(data)) as opened:
        width, height = opened.size
    text = base64.b64encode(data).decode()
    return f'<img alt="" width="{width}" height="{height}" src="data:image/webp;base64,{text}">'


def webp(frames: Sequence[np.ndarray], quality: int, milliseconds: int = 0) -> bytes:
    """Pictures as one WebP: several of them move, over and over."""
    images = [Image.fromarray(frame) for frame in frames]
    buffer = io.BytesIO()
    more = {"save_all": True, "append_images": images[1:], "duration": milliseconds, "loop": 0}
    images[0].save(buffer, format="WEBP", quality=quality, method=4, **(more if len(images) > 1 else {}))
    return buffer.getvalue()


def _moving(sample: Sample, video: np.ndarray, height: int) -> bytes:
    every = -(-len(video) // MOVING_FRAMES)
    which = range(0, len(video), every)
    rate = sample.metadata.fps
    milliseconds = max(20, round(1000 * every * rate[1] / rate[0]))
    return webp(pictures(sample, video, which, height), MOVING_QUALITY, milliseconds)
