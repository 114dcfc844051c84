"""Clips made of numbers, for the tests of every family."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from fbm_dist.clip import Clip

MakeClip = Callable[..., Clip]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums on one thread: the order of additions, hence the last bits, do not depend on the machine's cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def make_clip() -> MakeClip:
    """make_clip(batch, size=64, seed=0): a bright square that moves right over a smooth, still background; its true mask."""

    def make(batch: int, size: int = 64, seed: int = 0, frames: int = 16) -> Clip:
        generator = torch.Generator().manual_seed(seed)
        coarse = torch.rand(batch, 3, 4, 4, generator=generator) * 1.2 - 0.6
        still = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
        video = still[:, :, None].repeat(1, 1, frames, 1, 1)
        mask = torch.zeros(batch, 1, frames, size, size)
        side = size // 4
        for i in range(batch):
            colour = torch.rand(3, 1, 1, generator=generator) * 2 - 1
            top, left = torch.randint(0, size // 4, (2,), generator=generator).tolist()
            for t in range(frames):
                x = left + t * (size // 2) // frames
                video[i, :, t, top : top + side, x : x + side] = colour
                mask[i, :, t, top : top + side, x : x + side] = 1
        return Clip(
            video=video,
            mask=mask,
            truth=None,
            frames=torch.arange(frames).repeat(batch, 1),
            film=torch.arange(batch),
            key=tuple(f"clip{i}" for i in range(batch)),
            labels={"action": torch.arange(batch) % 2},
        )

    return make
