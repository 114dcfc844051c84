"""Frames of a clip side by side, the foreground tinted by its soft score; and a sheet of such strips as one picture."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image, ImageDraw, ImageFont

from data_tools.frames import resized
from data_tools.report.names import shown
from data_tools.sample import Metadata, Sample
from data_tools.videos import decode_clip

TINT = (255, 40, 40)  # of the foreground
TRUTH = (60, 255, 60)  # outline of the true mask
LINE = 16  # pixels of a row's heading
GAP = 2
MOST = 64_000  # pixels in height: viewers and PNG readers give up on more


def overlay(
    frame: UInt8[np.ndarray, "h w 3"],
    mask: UInt8[np.ndarray, "a b"] | None,
    truth: UInt8[np.ndarray, "a b"] | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """The frame with `mask` (soft score * 255) as a tint and the edge of `truth` as a line."""
    out: np.ndarray = frame.astype(np.float32)
    size = frame.shape[:2]
    if mask is not None:
        share = resized(mask, size)[..., None] / 255 * 0.6
        out = out * (1 - share) + np.array(TINT, dtype=np.float32) * share
    if truth is not None:
        inside = resized(truth, size) > 127
        core = inside.copy()
        core[1:-1, 1:-1] = (
            inside[1:-1, 1:-1] & inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
        )
        out[inside & ~core] = TRUTH
    return np.rint(out).astype(np.uint8)


def pictures(
    sample: Sample, frames: UInt8[np.ndarray, "t h w 3"], which: Sequence[int], height: int
) -> list[UInt8[np.ndarray, "a b 3"]]:
    """Some of a clip's frames at that height in pixels, with its masks on them."""
    width = max(1, round(height * frames.shape[2] / frames.shape[1]))
    return [
        overlay(
            resized(frames[i], (height, width)),
            sample.mask[i] if sample.mask is not None else None,
            sample.truth[i] if sample.truth is not None else None,
        )
        for i in which
    ]


def spread(num_frames: int, number: int) -> Int64[np.ndarray, "_"]:
    """At most `number` frames of a clip, evenly spread, the first and the last among them."""
    return np.unique(np.linspace(0, num_frames - 1, number).round().astype(np.int64))


def strip(parts: Sequence[UInt8[np.ndarray, "h _ 3"]]) -> UInt8[np.ndarray, "h _ 3"]:
    """Pictures of one height side by side, black between them."""
    padded = [np.pad(part, ((0, 0), (0, GAP), (0, 0))) for part in parts]
    return np.concatenate(padded, axis=1)[:, :-GAP]


def facts(key: str, meta: Metadata) -> str:
    """One line about a clip: where from, how long, labels, verdict."""
    labels = " ".join(f"{name}={value}" for name, value in meta.labels.items())
    verdict = "pruned: " + ",".join(meta.verdict) if meta.verdict else ("kept" if meta.statistics else "")
    share = f"fg {np.mean(meta.statistics.foreground):.1%}" if meta.statistics else f"masks {meta.masks}"
    where = f"{meta.source} shot {meta.shot} frames {meta.span[0]}-{meta.span[1]}"
    size = f"{meta.size[1]}x{meta.size[0]}"
    return "  ".join(shown(part) for part in (where, size, share, verdict, labels, key[:10]) if part)


def sheet(samples: Sequence[Sample], frames: int, height: int) -> bytes:
    """A PNG: for each clip a line of facts and `frames` pictures of that height."""
    rows = [_row(sample, frames, height) for sample in samples]
    width = max(row.shape[1] for row in rows)
    whole = np.concatenate([np.pad(row, ((0, GAP), (0, width - row.shape[1]), (0, 0))) for row in rows])
    buffer = io.BytesIO()
    Image.fromarray(whole).save(buffer, format="PNG")
    return buffer.getvalue()


def _row(sample: Sample, number: int, height: int) -> UInt8[np.ndarray, "h w 3"]:
    frames = decode_clip(sample.video)
    row = strip(pictures(sample, frames, spread(len(frames), number).tolist(), height))
    text = facts(sample.key, sample.metadata)
    font = ImageFont.load_default(size=11)
    heading = Image.new("RGB", (max(row.shape[1], int(font.getlength(text)) + 4), LINE), (24, 24, 24))
    ImageDraw.Draw(heading).text((2, 1), text, fill=(230, 230, 230), font=font)
    row = np.pad(row, ((0, 0), (0, heading.width - row.shape[1]), (0, 0)))
    return np.concatenate([np.asarray(heading), row])
