"""Shots are cut where the scene changes and nowhere else, frame by frame, a bounded number of frames late."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.schema import Shots
from data_tools.shots import Detector, detector, histogram, kernel_cuts, thumbnail


def scene(seed: int, count: int, pan: int = 2, noise: float = 3.0) -> np.ndarray:
    """Random blocks in colours of the scene's own that move by `pan` px a frame, with sensor noise."""
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 255, (9, 40, 3)).astype(np.float32)
    wide = np.kron(base, np.ones((8, 8, 1))) * rng.uniform(0.2, 0.4) + rng.uniform(0, 150, 3)
    frames = [np.roll(wide, -pan * i, axis=1)[:, :96] + rng.normal(0, noise, (72, 96, 3)) for i in range(count)]
    return np.clip(np.stack(frames), 0, 255).astype(np.uint8)


def begins(cutter: Detector, frames: np.ndarray) -> list[int]:
    decisions = [d for frame in frames for d in cutter.push(frame)] + cutter.finish()
    assert len(decisions) == len(frames)
    return [i for i, begin in enumerate(decisions) if begin]


@pytest.mark.parametrize("kind", ["adaptive", "kernel"])
def test_cuts_are_found_to_the_frame(kind: str) -> None:
    film = np.concatenate([scene(1, 40), scene(2, 25), scene(3, 60), scene(4, 12)])
    assert begins(detector(Shots(detector=kind)), film) == [0, 40, 65, 125]  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["adaptive", "kernel"])
@pytest.mark.parametrize("pan", [0, 2, 7])
def test_motion_and_noise_are_no_cuts(kind: str, pan: int) -> None:
    assert begins(detector(Shots(detector=kind)), scene(5, 90, pan, noise=6.0)) == [0]  # type: ignore[arg-type]


def test_no_detector_no_cuts() -> None:
    film = np.concatenate([scene(1, 20), scene(2, 20)])
    assert begins(detector(Shots(detector="none")), film) == [0]


def test_a_shot_is_never_shorter_than_asked() -> None:
    film = np.concatenate([scene(i, 7) for i in range(20)])
    for kind in ("adaptive", "kernel"):
        cuts = begins(detector(Shots(detector=kind, min_frames=10)), film)  # type: ignore[arg-type]
        assert len(cuts) > 1
        assert min(np.diff(cuts)) >= 10


def test_a_flash_is_one_event_not_two_shots() -> None:
    film = scene(1, 60)
    film[30] = 255
    assert len(begins(detector(Shots()), film)) <= 2


def test_kernel_windows_bound_the_work_and_lose_no_cut() -> None:
    film = np.concatenate([scene(i, 45) for i in range(10)])
    cutter = detector(Shots(detector="kernel", kernel_window=100))
    assert begins(cutter, film) == [45 * i for i in range(10)]


def test_kernel_segmentation_equals_brute_force() -> None:
    rng = np.random.default_rng(0)
    features = np.concatenate([rng.normal(c, 0.05, (n, 3)) for c, n in ((0, 4), (1, 5), (-1, 3))])
    penalty = Shots(detector="kernel", min_frames=2, kernel_max_cuts=3)

    def cost(cuts: tuple[int, ...]) -> float:
        bounds = (0, *cuts, len(features))
        if min(np.diff(bounds)) < 2:
            return np.inf
        parts = [features[a:b] for a, b in pairwise(bounds)]
        scatter = sum(((p - p.mean(0)) ** 2).sum() for p in parts)
        count, m = len(features), len(cuts)
        return scatter / count + (0.6 * m / (2 * count) * (np.log(count / m) + 1) if m else 0)

    choices = [c for m in range(4) for c in combinations(range(1, len(features)), m)]
    assert tuple(kernel_cuts(features, penalty)) == min(choices, key=cost) == (4, 9)


def test_histograms_sum_to_one_a_channel() -> None:
    values = histogram(thumbnail(scene(0, 1)[0]))
    assert values.reshape(6, 40).sum(axis=1) == pytest.approx(np.ones(6))


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(["adaptive", "kernel", "none"]), st.integers(0, 70), st.integers(1, 5), st.integers(0, 2**31))
def test_every_frame_is_decided_once_and_the_first_begins(kind: str, count: int, window: int, seed: int) -> None:
    frames = np.random.default_rng(seed).integers(0, 255, (count, 8, 8, 3)).astype(np.uint8)
    cutter = detector(Shots(detector=kind, window=window, kernel_window=20, min_frames=3))  # type: ignore[arg-type]
    cuts = begins(cutter, frames)
    assert cuts[:1] == ([0] if count else [])
