"""Small data sets with all that statistics and pages tell of: masks and verdicts, labels, licences, films left out, hostile names."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.building.ledger import Outcome, write_ledger
from data_tools.dataset import commit_snapshot
from data_tools.places import Place
from data_tools.prune import Pruning, boxes, clip_verdict, keep, statistics
from data_tools.sample import Metadata, Sample
from data_tools.shards import write_shard
from data_tools.videos import encode

RULES = Pruning(min_foreground=0.05, max_foreground=0.6, max_border=0.2)
HOSTILE = "films/<script>alert(1)</script>\"'&\n\u202egnp.mp4"
SIDE, FRAMES = 128, 8


@cache
def video(number: int) -> bytes:
    """A few frames of noise, all alike in size."""
    rng = np.random.default_rng(number)
    blocks = np.kron(rng.integers(0, 255, (FRAMES, 8, 8, 3)), np.ones((1, 16, 16, 1)))
    return encode(blocks.astype(np.uint8), (25, 1))


def clip(number: int, covered: float, **more: Any) -> Sample:
    """Clip `number`, two to a film, whose foreground is a square in the middle that covers this share."""
    mask = np.zeros((FRAMES, 32, 32), np.uint8)
    half = round(16 * covered**0.5)
    mask[:, 16 - half : 16 + half, 16 - half : 16 + half] = 255
    measured = statistics(mask)
    given = {
        "film": f"film-{number // 2:04d}",
        "source": f"films/{number // 2}.mp4",
        "shot": number % 2,
        "span": (100 * (number % 2), 100 * (number % 2) + FRAMES),
        "group": f"film-{number // 2:04d}",
        "labels": {"action": ("run", "walk", "run")[number % 3]},
        "keep": keep(measured, RULES),
        "verdict": clip_verdict(measured, RULES),
        "statistics": measured,
        "masks": "unlc",
        "mask_size": (32, 32),
        "boxes": boxes(mask),
        **more,
    }
    metadata = Metadata(fps=(25, 1), size=(SIDE, SIDE), num_frames=FRAMES, codec="vp9", **given)
    return Sample(f"clip-{number:04d}", metadata, video(number % 4), mask if given["masks"] == "unlc" else None)


def write(root: Place, samples: Sequence[Sample], per_shard: int = 3, films: Sequence[Outcome] | None = None) -> Place:
    """A data set of these clips, with a ledger of `films` where that is given."""
    names = [f"{start:06d}" for start in range(0, len(samples), per_shard)]
    for name in names:
        write_shard(root, name, samples[int(name) : int(name) + per_shard])
    commit_snapshot(root, {"prune": RULES.model_dump()}, names)
    if films is not None:
        write_ledger(root, films)
    return root


def write_all(root: Path, clips: int = 10) -> Path:
    """Clips that are kept or too small or too large, films that were used or not, one with a hostile name."""
    more = {
        0: {"source": HOSTILE, "labels": {"action": HOSTILE}},
        3: {"split": "test", "licence": "CC <BY>", "group": "anna"},
    }
    samples = [clip(i, (0.1, 0.12, 0.02, 0.7)[i % 4], **more.get(i, {})) for i in range(clips)]
    films = [
        *(Outcome(source=f"films/{i}.mp4", film=f"film-{i:04d}", status="used", shots=2, snapshot=1) for i in range(1, clips // 2)),
        Outcome(source=HOSTILE, film="film-0000", status="used", shots=4, snapshot=1),
        Outcome(source="a.mp4", status="skipped", reason="7 frames: shorter than min_frames = 16", snapshot=1),
        Outcome(source="b.mp4", status="skipped", reason="9 frames: shorter than min_frames = 16", snapshot=1),
        Outcome(source="<b>.mp4", status="failed", reason="gave up: <i>died</i>", snapshot=1),
    ]  # fmt: skip
    write(root, samples, films=films)
    return root
