"""A contact sheet of a data set: frames of some clips in rows, foreground tinted by its soft score, a line of facts above each row."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from data_tools.clips import resized
from data_tools.sample import Metadata, Sample
from data_tools.schema import Inspect
from data_tools.shards import read_manifest, read_sample, write_atomic
from data_tools.videos import decode_clip

TINT = (255, 40, 40)  # of the foreground
TRUTH = (60, 255, 60)  # outline of the true mask
LINE = 16  # pixels of a row's heading
GAP = 2
MOST = 64_000  # pixels in height: viewers and PNG readers give up on more


def inspect(settings: Inspect) -> Path:
    """Draw the sheet and return its path.

    Raises:
        ValueError: there is no data set, or the sheet would be too tall.
    """
    if settings.clips * (settings.height + LINE + GAP) > MOST:
        raise ValueError(
            f"{settings.clips} rows of {settings.height} px are too many for one sheet; ask for fewer clips"
        )
    table = read_manifest(settings.path, settings.snapshot)
    chosen = np.random.default_rng(settings.seed).permutation(table.num_rows)[: settings.clips]
    rows = [_row(read_sample(settings.path, row), settings) for row in table.take(np.sort(chosen)).to_pylist()]
    width = max(row.shape[1] for row in rows)
    sheet = np.concatenate([np.pad(row, ((0, GAP), (0, width - row.shape[1]), (0, 0))) for row in rows])
    path = settings.output or settings.path / "inspect.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, format="PNG")
    write_atomic(path, buffer.getvalue())
    return path


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


def facts(key: str, meta: Metadata) -> str:
    """One line about a clip: where from, how long, labels, verdict."""
    labels = " ".join(f"{name}={value}" for name, value in meta.labels.items())
    verdict = "pruned: " + ",".join(meta.verdict) if meta.verdict else ("kept" if meta.statistics else "")
    share = f"fg {np.mean(meta.statistics.foreground):.1%}" if meta.statistics else f"masks {meta.masks}"
    source = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in meta.source)
    where = f"{source} shot {meta.shot} frames {meta.span[0]}-{meta.span[1]}"
    return "  ".join(
        part for part in (where, f"{meta.size[1]}x{meta.size[0]}", share, verdict, labels, key[:10]) if part
    )


def _row(sample: Sample, settings: Inspect) -> UInt8[np.ndarray, "h w 3"]:
    frames = decode_clip(sample.video)
    picked = np.unique(np.linspace(0, len(frames) - 1, settings.frames).round().astype(int))
    width = max(1, round(settings.height * frames.shape[2] / frames.shape[1]))
    pictures = []
    for i in picked:
        mask = sample.mask[i] if sample.mask is not None else None
        truth = sample.truth[i] if sample.truth is not None else None
        pictures.append(overlay(resized(frames[i], (settings.height, width)), mask, truth))
    strip = np.concatenate([np.pad(p, ((0, 0), (0, GAP), (0, 0))) for p in pictures], axis=1)
    text = facts(sample.key, sample.metadata)
    font = ImageFont.load_default(size=11)
    heading = Image.new("RGB", (max(strip.shape[1], int(font.getlength(text)) + 4), LINE), (24, 24, 24))
    ImageDraw.Draw(heading).text((2, 1), text, fill=(230, 230, 230), font=font)
    strip = np.pad(strip, ((0, 0), (0, heading.width - strip.shape[1]), (0, 0)))
    return np.concatenate([np.asarray(heading), strip])
