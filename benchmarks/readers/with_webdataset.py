"""webdataset: its stream of members, and a training pipeline of it, PyAV and torch's DataLoader."""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator
from typing import Any

import torch
import webdataset
from torch.utils.data import DataLoader

from benchmarks.readers.measuring import Run
from benchmarks.readers.with_pyav import decoder

SHARDS, SAMPLES = 100, 1000  # that its shuffles hold
DECODE = decoder()  # as fast as any of PyAV's interpolations


def members(tars: list[str], extensions: tuple[str, ...] | None) -> Run:
    """MB of members, shuffled: those with these extensions, or all of a sample's."""

    def run(amount: float) -> Iterator[float]:
        yield 0.0
        done = 0
        for sample in _stream(tars, extensions).repeat():
            done += sum(len(value) for name, value in sample.items() if not name.startswith("__"))
            yield done / 1e6

    return run


def clips(tars: list[str], stored_frames: int, frames: int, side: int, batch: int, normalise: str) -> Run:
    """Clips of float32 (b, c, t, h, w) batches in [-1, 1]: decoded by one worker process, as many cores as the loader's reader.

    Args:
        normalise: "worker" or "main": in which process uint8 becomes float32; what travels between them is four times smaller in
            "main".
    """

    def run(amount: float) -> Iterator[float]:
        decode = functools.partial(_decoded, stored_frames=stored_frames, frames=frames, side=side, normalise=normalise)
        stream = _stream(tars, (".mp4",)).map(decode).repeat()
        # spawn: a fork of this process, where other readers have run threads, may hang
        loader: Any = DataLoader(stream, batch_size=batch, num_workers=1, multiprocessing_context="spawn")
        done = -4 * batch  # more than is read ahead
        for video in loader:
            if normalise == "main":
                video = _normalised(video)
            assert video.shape == (batch, 3, frames, side, side)
            done += batch
            if done >= 0:
                yield float(done)

    return run


def _stream(tars: list[str], extensions: tuple[str, ...] | None) -> Any:
    select = functools.partial(_is_wanted, extensions=extensions) if extensions is not None else None
    stream = webdataset.WebDataset(tars, shardshuffle=SHARDS, select_files=select, empty_check=False)
    return stream.shuffle(SAMPLES)


def _is_wanted(name: str, extensions: tuple[str, ...]) -> bool:
    return name.endswith(extensions)


def _decoded(sample: dict[str, Any], stored_frames: int, frames: int, side: int, normalise: str) -> torch.Tensor:
    first = random.randrange(stored_frames - frames + 1)
    video = torch.from_numpy(DECODE(sample["mp4"], first, frames, side)).permute(3, 0, 1, 2)
    return _normalised(video) if normalise == "worker" else video


def _normalised(video: torch.Tensor) -> torch.Tensor:
    return video.float().mul_(1 / 127.5).sub_(1.0).contiguous()
