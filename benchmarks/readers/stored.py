"""The data sets that all readers read: slow pans over noisy photographs, with soft masks of a disk, in prepared shards."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from skimage import data as photographs

from data_tools.dataset import commit_snapshot, read_manifest
from data_tools.sample import Metadata, Sample
from data_tools.shards import FOLDER, write_shard
from data_tools.videos import encode

Codec = Literal["vp9", "h264"]
FRAMES, SIZE, FPS = 64, (128, 160), (25, 1)  # of a stored clip; height and width in pixels


@dataclass(frozen=True)
class Stored:
    """A data set, and its clips' videos by the places that the manifest gives."""

    root: Path

    @property
    def tars(self) -> list[str]:
        """The shards' paths."""
        return [str(path) for path in sorted((self.root / FOLDER).glob("*.tar"))]

    @cached_property
    def _videos(self) -> list[tuple[int, int, int]]:
        """File descriptor, offset and size of each clip's mp4."""
        open_files: dict[str, int] = {}
        found = []
        for row in read_manifest(self.root).select(["shard", "members"]).to_pylist():
            path = str(self.root / FOLDER / f"{row['shard']}.tar")
            if path not in open_files:
                open_files[path] = os.open(path, os.O_RDONLY)
            video = next(member for member in row["members"] if member["extension"] == "mp4")
            found.append((open_files[path], video["offset"], video["size"]))
        return found

    def __len__(self) -> int:
        return len(self._videos)

    def video(self, number: int) -> bytes:
        """The mp4 of a clip, read from its place in the tar."""
        file, offset, size = self._videos[number]
        return os.pread(file, size, offset)


def write(
    root: Path, codec: Codec, clips: int, *, shards: int = 1, frames: int = FRAMES, size: tuple[int, int] = SIZE
) -> Stored:
    """`clips` clips, of which the first 32 are different and the others repeat them under other keys."""
    different = list(_samples(min(clips, 32), codec, frames, size))

    def repeated(numbers: range) -> Iterator[Sample]:
        for number in numbers:
            key, metadata, video, mask = different[number % len(different)]
            yield Sample(f"{key}-{number:06d}", metadata, video, mask)

    bounds = [clips * number // shards for number in range(shards + 1)]
    names = [f"clips-{number:06d}" for number in range(shards)]
    for name, first, last in zip(names, bounds, bounds[1:], strict=False):
        write_shard(root, name, repeated(range(first, last)))
    commit_snapshot(root, {"made_by": "benchmarks/loader.py"}, names)
    return Stored(root)


def _samples(
    clips: int, codec: Codec, frames: int, size: tuple[int, int]
) -> Iterator[tuple[str, Metadata, bytes, np.ndarray]]:
    """Key, metadata, mp4 and masks."""
    pictures = [photographs.astronaut(), photographs.coffee(), photographs.rocket(), photographs.cat()]
    rng = np.random.default_rng(0)
    for number in range(clips):
        picture = pictures[number % len(pictures)]
        y, x = rng.integers(0, [picture.shape[0] - size[0] - frames, picture.shape[1] - size[1] - frames])
        video = np.stack([picture[y + t // 2 : y + t // 2 + size[0], x + t : x + t + size[1]] for t in range(frames)])
        noisy = np.clip(video + rng.normal(0, 4, video.shape), 0, 255).astype(np.uint8)
        masks = np.zeros((frames, size[0] // 2, size[1] // 2), np.uint8)
        for t, mask in enumerate(masks):
            cv2.circle(mask, (10 + t, size[0] // 4), size[0] // 12, 255, -1)
        soft = np.stack([cv2.GaussianBlur(mask, (9, 9), 2) for mask in masks])
        metadata = Metadata(
            film=f"film-{number}", source=f"{number}.mp4", shot=0, span=(0, frames), fps=FPS, size=size, num_frames=frames,
            codec=codec, group=f"film-{number}", masks="given", mask_size=masks.shape[1:],
        )  # fmt: skip
        yield f"clip-{number:02d}", metadata, encode(noisy, FPS, codec), soft
