"""A data set of clips that differ in everything that filters and clip settings ask for. Nothing of it can be decoded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from data_tools.dataset import commit_snapshot
from data_tools.prune import Pruning, clip_verdict
from data_tools.sample import MaskStatistics, Metadata, Sample
from data_tools.shards import write_shard

SHARDS = (7, 1, 20, 12, 20)  # clips of each


def write_varied(root: Path) -> tuple[Path, list[Metadata]]:
    """The data set, and what each clip says of itself."""
    random = np.random.default_rng(0)
    told = [_metadata(number, random) for number in range(sum(SHARDS))]
    samples = [_sample(number, metadata) for number, metadata in enumerate(told)]
    names, done = [], 0
    for number, clips in enumerate(SHARDS):
        names.append(f"shard-{number}")
        write_shard(root, names[-1], samples[done : done + clips])
        done += clips
    commit_snapshot(root, {"made_by": "test"}, names)
    return root, told


def key_of(number: int) -> str:
    """Keys of several lengths."""
    return f"clip-{number}" + "-long" * (number % 4)


def _metadata(number: int, random: np.random.Generator) -> Metadata:
    frames = int(random.integers(1, 10))
    statistics = None
    if random.random() < 0.7:
        shares = (0.0, 0.004, 0.05, 0.2, 0.9)
        statistics = MaskStatistics(
            foreground=tuple(random.choice(shares, frames).tolist()),
            border=tuple(random.choice((0.0, 0.05, 0.3), frames).tolist()),
            uncertain=(0.0,) * frames,
            flatness=float(random.choice((0.01, 0.3))),
            consistency=float(random.choice((0.1, 0.9))),
        )
    masks = random.random() < 0.7
    labels: dict[str, str] = {"motion": "left"} if random.random() < 0.5 else {}
    labels |= {"thing": f"thing-{random.integers(4)}"} if random.random() < 0.8 else {}
    more: dict[str, Any] = {"mask_size": (4, 5), "masks": "given"} if masks else {}
    return Metadata(
        film=f"film-{number // 3}",
        source="x",
        shot=0,
        span=(number * 10, number * 10 + frames),
        fps=(25, 1),
        size=(32 + 2 * int(random.integers(0, 9)), 48),
        num_frames=frames,
        codec="png" if frames == 1 else ("vp9", "h264")[int(random.integers(2))],
        group=f"group-{number // 5}",
        split=(None, "train", "val")[int(random.integers(3))],
        labels=labels,
        statistics=statistics,
        keep=tuple((random.random(frames) < 0.7).tolist()),
        verdict=clip_verdict(statistics, Pruning()) if statistics else (),
        **more,
    )


def _sample(number: int, metadata: Metadata) -> Sample:
    shape = (metadata.num_frames, 4, 5)
    masks = np.zeros(shape, np.uint8) if metadata.mask_size else None
    truth = masks if masks is not None and number % 3 else None
    return Sample(key_of(number), metadata, b"no film", masks, truth)
