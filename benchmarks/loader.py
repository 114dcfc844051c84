"""Clips per CPU-second of the loader with each decoder, beside the bare decoder: `python benchmarks/loader.py [--clips 96]`.

16 frames of 128 x 128 with their masks from clips of 64 frames, 160 x 128, VP9 and H.264. CPU time is user + system of this
process and its reader processes; the median of `--repeats` runs. Prints a table, then one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import psutil
import torch
from rich.console import Console
from rich.table import Table
from skimage import data as photographs

from data_tools.dataset import commit_snapshot, read_manifest
from data_tools.sample import Metadata, Sample
from data_tools.shards import read_sample, write_shard
from data_tools.videos import encode
from fbm_dist.data.decoding.frames import frames_of
from fbm_dist.data.loader import Loader
from fbm_dist.schema import ClipSpec, Data

SPEC = ClipSpec(frames=16, size=128, reverse=0.5, mirror=0.5)
BATCH = 8
FRAMES, SIZE, FPS = 64, (128, 160), (25, 1)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])  # type: ignore[union-attr]
    arguments.add_argument("--clips", type=int, default=96, help="clips that each run reads")
    arguments.add_argument("--stored", type=int, default=32, help="clips in the data set")
    arguments.add_argument("--repeats", type=int, default=3)
    chosen = arguments.parse_args()
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FBM_CACHE"] = str(Path(folder) / "cache")
        runs = _runs(Path(folder), chosen.stored)
        figures = {name: measure(run, chosen.clips, chosen.repeats) for name, run in runs.items()}
    table = Table("reader", "clips/s", "clips per CPU-second")
    for name, (wall, cpu) in figures.items():
        table.add_row(name, f"{wall:.0f}", f"{cpu:.0f}")
    Console().print(table)
    per_cpu = {name: round(cpu, 1) for name, (_, cpu) in figures.items()}
    print(json.dumps({"clips_per_cpu_second": per_cpu, "cores": os.cpu_count(), "clips": chosen.clips}))


def measure(run: Callable[[int], Iterator[int]], clips: int, repeats: int) -> tuple[float, float]:
    """Clips per second and per CPU-second, medians; the start (processes, the first batches) is not counted."""
    walls, cpus = [], []
    for _ in range(repeats):
        counts = run(clips)
        next(counts)
        start, used, done = time.perf_counter(), _cpu_seconds(), 0
        for done in counts:  # noqa: B007
            pass_used, wall = _cpu_seconds() - used, time.perf_counter() - start
        walls.append(done / wall)
        cpus.append(done / pass_used)
    return statistics.median(walls), statistics.median(cpus)


def _cpu_seconds() -> float:
    """User and system time of this process and of its readers, which are alive while it is asked."""
    me = psutil.Process()
    return sum(sum(process.cpu_times()[:2]) for process in (me, *me.children(recursive=True)))


def _runs(folder: Path, stored: int) -> dict[str, Callable[[int], Iterator[int]]]:
    runs: dict[str, Callable[[int], Iterator[int]]] = {}
    codecs: tuple[Literal["vp9", "h264"], ...] = ("vp9", "h264")
    for codec in codecs:
        path = write(folder / codec, stored, codec)
        decoders: tuple[Literal["dali", "pyav"], ...] = ("dali", "pyav") if codec == "vp9" else ("pyav",)
        for decoder in decoders:
            runs[f"Loader {decoder} {codec}"] = partial(_loader, path, decoder)
        runs[f"PyAV alone {codec}"] = partial(_alone, path)
    return runs


def _loader(path: Path, decoder: Literal["dali", "pyav"], clips: int) -> Iterator[int]:
    """Counts of clips read so far; 0 once it is warm."""
    with Loader(Data(path=path, clip=SPEC, decode=decoder), seed=0, global_batch=BATCH, micro_batch=BATCH) as loader:
        stream = iter(loader)
        for _ in islice(stream, 4):  # more than it reads ahead
            pass
        yield 0
        for number, clip in enumerate(islice(stream, -(-clips // BATCH)), start=1):
            assert clip.mask is not None
            yield number * BATCH


def _alone(path: Path, clips: int) -> Iterator[int]:
    """The same frames decoded and resized in one loop, without masks, order, normalisation or batches: a lower bound of the work."""
    rows = read_manifest(path).to_pylist()
    videos = [read_sample(path, row).video for row in rows]
    starts = np.random.default_rng(0).integers(0, FRAMES - SPEC.span + 1, clips)
    yield 0
    for number, start in enumerate(starts.tolist(), start=1):
        frames = frames_of(videos[number % len(videos)], range(start, start + SPEC.span), SIZE, FPS, rows[0]["codec"])
        np.stack([cv2.resize(frame, (SPEC.size, SPEC.size)) for frame in frames])
        if number % BATCH == 0:
            yield number


def write(root: Path, clips: int, codec: Literal["vp9", "h264"]) -> Path:
    """A data set of slow pans over noisy photographs, with soft masks of a disk."""
    pictures = [photographs.astronaut(), photographs.coffee(), photographs.rocket(), photographs.cat()]
    rng = np.random.default_rng(0)

    def sample(number: int) -> Sample:
        picture = pictures[number % len(pictures)]
        y, x = rng.integers(0, [picture.shape[0] - SIZE[0] - FRAMES, picture.shape[1] - SIZE[1] - FRAMES])
        video = np.stack([picture[y + t // 2 : y + t // 2 + SIZE[0], x + t : x + t + SIZE[1]] for t in range(FRAMES)])
        noisy = np.clip(video + rng.normal(0, 4, video.shape), 0, 255).astype(np.uint8)
        masks = np.zeros((FRAMES, SIZE[0] // 2, SIZE[1] // 2), np.uint8)
        for t, mask in enumerate(masks):
            cv2.circle(mask, (10 + t, 32), 10, 255, -1)
        soft = np.stack([cv2.GaussianBlur(mask, (9, 9), 2) for mask in masks])
        metadata = Metadata(
            film=f"film-{number}", source=f"{number}.mp4", shot=0, span=(0, FRAMES), fps=FPS, size=SIZE, num_frames=FRAMES,
            codec=codec, group=f"film-{number}", masks="given", mask_size=masks.shape[1:],
        )  # fmt: skip
        return Sample(f"clip-{number:05d}", metadata, encode(noisy, FPS, codec), soft)

    write_shard(root, "clips-000000", (sample(number) for number in range(clips)))
    commit_snapshot(root, {"made_by": "benchmarks/loader.py"}, ["clips-000000"])
    return root


if __name__ == "__main__":
    main()
