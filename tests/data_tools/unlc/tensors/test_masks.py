"""uNLC in tensors from end to end, on CPU tensors: as good as the other method, nearly the same masks, the same contract."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from data_tools.unlc import UNLC
from data_tools.unlc import motion_masks as other
from data_tools.unlc.pieces import Opinion
from data_tools.unlc.tensors import pictures
from data_tools.unlc.tensors.masks import motion_masks
from tests.moving_disc import overlap, scene


@pytest.mark.parametrize("camera", [(0, 0), (2, 0), (-1, 1)])
def test_finds_what_moves_and_agrees(camera: tuple[int, int]) -> None:
    frames, truth = scene(12, camera)
    ours, theirs = motion_masks(frames), other(frames)
    assert overlap(ours, truth) > overlap(theirs, truth) - 0.05
    assert overlap(ours, truth) > 0.75
    assert overlap(ours, theirs > 0.5) > 0.85
    assert np.abs(ours - theirs).mean() < 0.05


def test_a_networks_opinion_is_heard_alike() -> None:
    frames, truth = scene(8, (1, 0))
    quiet = np.zeros_like(truth)
    quiet[:, 60:90, 96:122] = True  # a corner of the ground
    opinion = Opinion(quiet[:, ::3, ::3].astype(np.float32), 0.5)
    alone, ours, theirs = motion_masks(frames), motion_masks(frames, opinion=opinion), other(frames, opinion=opinion)
    assert ours[:, 66:84, 102:116].mean() > alone[:, 66:84, 102:116].mean() + 0.3
    assert np.abs(ours - theirs).mean() < 0.05
    still = np.full((3, 40, 50, 3), 90, np.uint8)
    scores = Opinion(np.random.default_rng(0).random((3, 8, 10), dtype=np.float32), 0.5)
    np.testing.assert_allclose(motion_masks(still, opinion=scores), other(still, opinion=scores), atol=1e-4)


@pytest.mark.parametrize("camera", [(0, 0), (4, 0)])
def test_the_papers_settings_agree_too(camera: tuple[int, int]) -> None:
    frames, truth = scene(10, camera)
    ours, theirs = motion_masks(frames, UNLC.paper()), other(frames, UNLC.paper())
    assert overlap(ours, truth) > overlap(theirs, truth) - 0.05
    assert overlap(ours, theirs > 0.5) > 0.75


def test_is_deterministic_and_does_not_depend_on_how_much_is_done_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    frames, _ = scene(5, (1, 0))
    once = motion_masks(frames)
    np.testing.assert_array_equal(once, motion_masks(frames))
    monkeypatch.setattr(pictures, "BUDGET", {"cpu": 1})
    np.testing.assert_allclose(motion_masks(frames), once, atol=1e-3)


@pytest.mark.parametrize("long_shots", ["windows", "decimate"])
def test_long_shots_are_done_in_pieces(long_shots: str) -> None:
    frames, truth = scene(22, (1, 0))
    settings = UNLC.model_validate({"max_frames": 12, "overlap": 4, "long_shots": long_shots})
    scores = motion_masks(frames, settings)
    assert len(scores) == 22
    assert min(overlap(scores[i : i + 1], truth[i : i + 1]) for i in range(22)) > 0.4, "no frame is left out"
    assert overlap(scores, other(frames, settings) > 0.5) > 0.75


def test_refuses_what_is_no_film() -> None:
    with pytest.raises(ValueError, match=r"uint8 \(T, H, W, 3\)"):
        motion_masks(np.zeros((2, 8, 8), np.uint8))


def test_real_sequence() -> None:
    root = Path(os.environ.get("FBM_REAL_DATA", Path(__file__).parents[5] / "shared" / "data"))
    folder = root / "davis2016-train-240p" / "hike"
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is absent")
    shown = sorted((folder / "frames").iterdir())[:24]
    frames = np.stack([cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in shown])
    truth = np.stack([cv2.imread(str(folder / "masks" / f"{path.stem}.png"), 0) > 0 for path in shown])
    assert overlap(motion_masks(frames), truth) > 0.6


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU, and pytest -m gpu")
@pytest.mark.parametrize(("preset", "alike"), [(UNLC(), 0.95), (UNLC.paper(), 0.93)], ids=["default", "paper"])
def test_a_gpu_gives_what_the_cpu_gives_twice_the_same(preset: UNLC, alike: float) -> None:
    """On the same flow. Rounding differs, so that a pixel may be in the next region (H100: 0.943 for the paper's)."""
    frames, truth = scene(12, (2, 0))
    gpu = torch.device("cuda", 0)
    ours, cpu = motion_masks(frames, preset, gpu, "dis"), motion_masks(frames, preset)
    np.testing.assert_array_equal(ours, motion_masks(frames, preset, gpu, "dis"))
    assert overlap(ours, cpu > 0.5) > alike
    assert np.abs(ours - cpu).mean() < 0.01
    assert overlap(motion_masks(frames, preset, gpu), truth) > overlap(cpu, truth) - 0.1, "whoever makes the flow"
