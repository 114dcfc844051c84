"""Tiny valid data sets, written with the real encoder and shard writer in a second: a textured square crosses a texture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from data_tools.dataset import commit_snapshot, read_manifest
from data_tools.sample import Metadata, Sample
from data_tools.shards import shard_file, write_shard
from data_tools.videos import encode, encode_image

FPS = (25, 1)
OBJECTS = ("rough", "striped", "plain")


def write_dataset(
    root: Path,
    clips: int = 12,
    frames: int = 20,
    size: tuple[int, int] = (128, 144),
    labels: Sequence[str] = ("motion", "object"),
    codec: Literal["vp9", "h264", "png"] = "vp9",
    truth: bool = True,
    masks: bool = True,
    seed: int = 0,
    clips_per_film: int = 2,
    clips_per_shard: int = 5,
) -> Path:
    """Make a prepared data set of `clips` clips at `root`; adds a snapshot where there is one already.

    Clip i shows a square that moves left (i even) or right (i odd) at about 2 pixels a frame. Labels: motion in
    {left, right}, object in {rough, striped, plain}; the last clip of every seven has no object label. One film holds
    `clips_per_film` clips; its group is "person-N" (3 of them) and its split train, val or test, by film.

    Args:
        labels: which of motion and object are stored.
        codec: png makes clips of one frame, whatever `frames` says.
        truth: store the true masks (hard edges); `masks`: store soft masks (the true ones, blurred).
    Returns:
        `root`.
    """
    samples = [make_sample(i, frames, size, labels, codec, truth, masks, seed, clips_per_film) for i in range(clips)]
    names = [f"clips-{seed:03d}-{start:06d}" for start in range(0, clips, clips_per_shard)]
    for shard, name in enumerate(names):
        write_shard(root, name, samples[shard * clips_per_shard : (shard + 1) * clips_per_shard])
    commit_snapshot(root, {"made_by": "tests/datasets.py"}, names)
    return root


def destroy(path: Path, key: str, extension: str = "mp4") -> None:
    """Overwrite a member with zeros; the file keeps its size."""
    row = next(row for row in read_manifest(path).to_pylist() if row["key"] == key)
    member = next(member for member in row["members"] if member["extension"] == extension)
    with shard_file(path, row["shard"], "tar").open("r+b") as file:
        file.seek(member["offset"])
        file.write(bytes(member["size"]))


def make_sample(
    number: int,
    frames: int,
    size: tuple[int, int],
    labels: Sequence[str],
    codec: Literal["vp9", "h264", "png"],
    truth: bool,
    masks: bool,
    seed: int,
    clips_per_film: int,
) -> Sample:
    """Clip `number` of such a data set."""
    video, hard = scene(number, 1 if codec == "png" else frames, size, seed)
    film = number // clips_per_film
    start = number % clips_per_film * 100  # frames of the film before this clip
    soft = np.stack([cv2.GaussianBlur(mask, (9, 9), 2) for mask in hard]) if masks else None
    known = {"motion": ("left", "right")[number % 2]} | ({"object": OBJECTS[number % 3]} if number % 7 < 6 else {})
    metadata = Metadata(
        film=f"{seed}-film-{film:03d}",
        source=f"films/film-{film:03d}.mp4",
        shot=number % clips_per_film,
        span=(start, start + len(video)),
        fps=FPS,
        size=size,
        num_frames=len(video),
        codec=codec,
        group=f"person-{film % 3}",
        split=("train", "train", "train", "val", "test")[film % 5],
        labels={name: known[name] for name in labels if name in known},
        masks="given" if masks else "none",
        mask_size=(hard.shape[1], hard.shape[2]) if masks or truth else None,
        verdict=("small",) if number % 6 == 5 else (),
    )
    data = encode_image(video[0]) if codec == "png" else encode(video, FPS, codec)
    return Sample(f"{seed}-clip-{number:04d}", metadata, data, soft, hard if truth else None)


def scene(number: int, frames: int, size: tuple[int, int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """uint8 video (T, H, W, 3) and its true masks (T, H/2, W/2), 0 or 255."""
    height, width = size
    rng = np.random.default_rng([seed, number])
    background = _texture(rng, height, width)
    side = height // 6 * 2
    square = _texture(rng, side, side)[..., ::-1] // 2 + np.uint8(110)
    if OBJECTS[number % 3] == "striped":
        square[:, ::8] = 255
    elif OBJECTS[number % 3] == "plain":
        square[:] = square.mean((0, 1)).astype(np.uint8)
    speed = (-1, 1)[number % 2] * rng.uniform(1.5, 2.5)
    x0, y0 = width / 2 - side / 2 - speed * frames / 2, rng.uniform(0, height - side)
    video = np.repeat(background[None], frames, axis=0)
    masks = np.zeros((frames, height // 2, width // 2), np.uint8)
    for t in range(frames):
        x, y = int(np.clip(x0 + speed * t, 0, width - side)) & ~1, int(y0) & ~1  # even: exact at half size
        video[t, y : y + side, x : x + side] = square
        masks[t, y // 2 : (y + side) // 2, x // 2 : (x + side) // 2] = 255
    return video, masks


def _texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    coarse = rng.integers(30, 200, (height // 12 + 2, width // 12 + 2, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
