"""Tiny data sets whose groups, splits and labels a test chooses; a clip's colour tells its label."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from data_tools.dataset import commit_snapshot
from data_tools.sample import Metadata, Sample
from data_tools.shards import write_shard
from data_tools.videos import encode, encode_image

COLOURS = {"red": (200, 60, 60), "green": (60, 200, 60), "blue": (60, 60, 200)}
FPS = (25, 1)


def write_clips(
    root: Path,
    groups: Sequence[str],
    *,
    first: int = 0,
    splits: Sequence[str | None] = (None,),
    colours: Sequence[str | None] = tuple(COLOURS),
    codec: Literal["vp9", "png"] = "png",
    frames: int = 6,
    clips_per_film: int = 2,
) -> Path:
    """One clip for every entry of `groups`, numbered from `first`; adds a snapshot where there is one already. No masks.

    Args:
        splits, colours: of clip i: the entry i modulo their number. The label "colour" says it; None: no such label, and grey.
        codec: png makes clips of one frame.
    Returns:
        `root`.
    """
    samples = []
    for i, group in enumerate(groups, first):
        colour = colours[i % len(colours)]
        random = np.random.default_rng(i)
        shape = (1 if codec == "png" else frames, 96, 96, 3)
        base = np.array(COLOURS[colour] if colour else (128, 128, 128)) + random.normal(0, 8, 3)
        video = np.clip(base + random.normal(0, 12, shape), 0, 255).astype(np.uint8)
        metadata = Metadata(
            film=f"{group}-film-{i // clips_per_film}",
            source=f"{i}.mp4",
            shot=0,
            span=(0, len(video)),
            fps=FPS,
            size=(96, 96),
            num_frames=len(video),
            codec=codec,
            group=group,
            split=splits[i % len(splits)],
            labels={"colour": colour} if colour else {},
        )
        data = encode_image(video[0]) if codec == "png" else encode(video, FPS, codec)
        samples.append(Sample(f"clip-{i:04d}", metadata, data))
    name = f"clips-{first:04d}"
    write_shard(root, name, samples)
    commit_snapshot(root, {"made_by": "tests/grouped.py"}, [name])
    return root
