"""Blobs and the guided filter over all frames at once, beside OpenCV's one at a time."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from data_tools.unlc import scores as cpu
from data_tools.unlc.tensors.scores import blobs, demote_small_blobs, guided_filter


def spiral(size: int = 41) -> np.ndarray:
    """A corridor one pixel wide, wound up: as long as a blob can be."""
    out = np.zeros((size, size), bool)
    y, x, dy, dx, steps = size // 2, size // 2, 0, 1, 2
    while True:
        for _ in range(2):
            for _ in range(steps):
                if not (0 <= y < size and 0 <= x < size):
                    return out
                out[y, x] = True
                y, x = y + dy, x + dx
            dy, dx = dx, -dy
        steps += 2


def patterns() -> np.ndarray:
    generator = np.random.default_rng(0)
    noise = [generator.random((41, 41)) > share for share in (0.3, 0.5, 0.6, 0.9)]
    smooth = cv2.GaussianBlur(generator.normal(size=(41, 41)), (0, 0), 2) > 0
    return np.stack([*noise, smooth, spiral(), np.zeros((41, 41), bool), np.ones((41, 41), bool)])


def test_blobs_are_opencvs() -> None:
    shown = patterns()
    found = blobs(torch.from_numpy(shown)).numpy()
    for inside, labels in zip(shown, found, strict=True):
        number, expected = cv2.connectedComponents(inside.astype(np.uint8), connectivity=8)
        pairs = set(zip(labels.ravel().tolist(), expected.ravel().tolist(), strict=True))
        assert len(pairs) == number - (not (~inside).any()), "one number for each of OpenCV's"
        assert len({ours for ours, _ in pairs}) == len({theirs for _, theirs in pairs}) == len(pairs)


def test_a_long_blob_takes_few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    from data_tools.unlc.tensors import scores

    rounds = []
    around = scores._largest_around
    monkeypatch.setattr(scores, "_largest_around", lambda labels: rounds.append(1) or around(labels))
    long = spiral(201)
    assert long.sum() > 9000
    assert len(blobs(torch.from_numpy(long)[None]).unique()) == 2
    assert len(rounds) < 20


def test_small_blobs_become_dont_care_as_the_others() -> None:
    generator = np.random.default_rng(1)
    shown = patterns()
    values = np.where(shown, 0.75 + 0.2 * generator.random(shown.shape), 0.3).astype(np.float32)
    found = demote_small_blobs(torch.from_numpy(values), 0.7, 0.6).numpy()
    expected = np.stack([cpu.demote_small_blobs(value, 0.7, 0.6) for value in values])
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert (found != values).any(), "there was something small"


@pytest.mark.parametrize(("radius", "epsilon"), [(4, 1e-3), (1, 1e-2), (30, 1e-4)])
def test_the_filter_equals_the_other(radius: int, epsilon: float) -> None:
    generator = np.random.default_rng(2)
    grey = generator.integers(0, 256, (3, 30, 44), dtype=np.uint8)
    values = generator.random((3, 30, 44)).astype(np.float32)
    found = guided_filter(torch.from_numpy(values), torch.from_numpy(grey), radius, epsilon).numpy()
    expected = [cpu.guided_filter(v, g, radius, epsilon) for v, g in zip(values, grey, strict=True)]
    np.testing.assert_allclose(found, np.stack(expected), atol=1e-4)
