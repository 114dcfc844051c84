"""uNLC from end to end: moving things are found, odd input is borne, long shots are bounded, settings are consistent."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_tools.config import ConfigError, load
from data_tools.schema import Prepare
from data_tools.unlc import UNLC, motion_masks
from data_tools.unlc.masks import working_frames
from data_tools.unlc.pieces import Opinion
from tests.moving_disc import overlap, scene, texture


@pytest.mark.parametrize("camera", [(0, 0), (2, 0), (-1, 1)])
def test_finds_what_moves(camera: tuple[int, int]) -> None:
    frames, truth = scene(12, camera)
    assert overlap(motion_masks(frames), truth) > 0.75


@pytest.mark.parametrize("camera", [(0, 0), (4, 0)])
def test_the_papers_settings_find_it_too(camera: tuple[int, int]) -> None:
    frames, truth = scene(10, camera)
    assert overlap(motion_masks(frames, UNLC.paper()), truth) > 0.5


def test_an_opinion_votes_beside_motion() -> None:
    """It finds what does not move, and is spread by the same consensus; with a share near 0 it says nothing."""
    frames, truth = scene(8, (1, 0))
    still = np.zeros_like(truth)
    still[:, 60:90, 96:122] = True  # a quiet corner of the ground
    scores = still[:, ::3, ::3].astype(np.float32)  # in a resolution of its own
    alone = motion_masks(frames)
    heard = motion_masks(frames, opinion=Opinion(scores, 0.5))
    assert alone[:, 66:84, 102:116].max() < 0.3
    assert heard[:, 66:84, 102:116].mean() > alone[:, 66:84, 102:116].mean() + 0.3
    np.testing.assert_allclose(motion_masks(frames, opinion=Opinion(scores, 1e-6)), alone, atol=0.02)


@pytest.mark.parametrize("long_shots", ["windows", "decimate"])
def test_opinions_of_long_shots_and_of_still_ones(long_shots: str) -> None:
    settings = UNLC.model_validate({"max_frames": 12, "overlap": 4, "long_shots": long_shots})
    still = np.repeat(texture(48, 64, 3, (120, 90, 60))[None], 22, 0)
    still[:] = still.mean(axis=(1, 2), keepdims=True)  # of one colour: nothing moves
    ramp = np.linspace(0, 1, 22, dtype=np.float32)[:, None, None]
    found = motion_masks(still, settings, Opinion(np.broadcast_to(ramp, (22, 6, 8)), 0.25))
    np.testing.assert_allclose(found, np.broadcast_to(ramp, found.shape), atol=0.03)
    with pytest.raises(ValueError, match=r"the opinion's scores are \(21, 6, 8\); they must be \(22, y, x\)"):
        motion_masks(still, settings, Opinion(np.zeros((21, 6, 8), np.float32), 0.25))


def test_is_deterministic() -> None:
    frames, _ = scene(5, (1, 0))
    np.testing.assert_array_equal(motion_masks(frames), motion_masks(frames))


@pytest.mark.parametrize("long_shots", ["windows", "decimate"])
def test_long_shots_are_done_in_pieces(long_shots: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from data_tools.unlc import masks

    frames, truth = scene(22, (1, 0))
    lengths = []
    whole = masks._masks_of_piece

    def counted(piece: np.ndarray, settings: UNLC, opinion: Opinion | None) -> np.ndarray:
        lengths.append(len(piece))
        return whole(piece, settings, opinion)

    monkeypatch.setattr(masks, "_masks_of_piece", counted)
    settings = UNLC.model_validate({"max_frames": 12, "overlap": 4, "long_shots": long_shots})
    scores = motion_masks(frames, settings)
    assert len(scores) == 22
    assert max(lengths) <= 12
    assert len(lengths) == (3 if long_shots == "windows" else 1)
    assert min(overlap(scores[i : i + 1], truth[i : i + 1]) for i in range(22)) > 0.4, "no frame is left out"


def test_windows_fade_over_what_they_share(monkeypatch: pytest.MonkeyPatch) -> None:
    from data_tools.unlc import masks

    level = iter((0.0, 1.0))
    monkeypatch.setattr(
        masks, "_masks_of_piece", lambda piece, _, __: np.full(piece.shape[:3], next(level), np.float32)
    )
    settings = UNLC.model_validate({"max_frames": 10, "overlap": 3})
    scores = motion_masks(np.zeros((17, 2, 2, 3), np.uint8), settings)[:, 0, 0]
    np.testing.assert_allclose(scores, [0] * 7 + [0.25, 0.5, 0.75] + [1] * 7, atol=1e-6)


def test_decimation_interpolates(monkeypatch: pytest.MonkeyPatch) -> None:
    from data_tools.unlc import masks

    seen = []

    def ramp(piece: np.ndarray, _: UNLC, __: Opinion | None) -> np.ndarray:
        seen.append(piece[:, 0, 0, 0].tolist())
        return np.repeat(piece[:, :, :, 0].astype(np.float32) / 100, 1, 0)

    monkeypatch.setattr(masks, "_masks_of_piece", ramp)
    frames = np.tile(np.arange(12, dtype=np.uint8)[:, None, None, None], (1, 2, 2, 3))
    settings = UNLC.model_validate({"max_frames": 5, "overlap": 0, "long_shots": "decimate"})
    scores = motion_masks(frames, settings)[:, 0, 0]
    assert seen == [[0, 3, 6, 9, 11]], "every third frame, and the last"
    np.testing.assert_allclose(scores, np.arange(12) / 100, atol=1e-6)


def test_working_size_only_shrinks() -> None:
    assert working_frames(np.zeros((1, 240, 427, 3), np.uint8), 320).shape == (1, 180, 320, 3)
    assert working_frames(np.zeros((1, 100, 120, 3), np.uint8), 320).shape == (1, 100, 120, 3)
    assert working_frames(np.zeros((1, 5, 2000, 3), np.uint8), 320).shape == (1, 32, 320, 3)


@pytest.mark.parametrize(
    "frames",
    [np.zeros((2, 8, 8, 3), np.float32), np.zeros((2, 8, 8), np.uint8), np.zeros((0, 8, 8, 3), np.uint8)],
)
def test_refuses_what_is_no_film(frames: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"uint8 \(T, H, W, 3\)"):
        motion_masks(frames)


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="less than half"):
        UNLC(max_frames=20, overlap=10)
    with pytest.raises(ValueError, match="baselines"):
        UNLC.model_validate({"motion": {"baselines": (0, 1)}})


def test_real_sequence() -> None:
    """Far above what residual flow (38) and a centre box (15) have on it, so a broken step shows; 78 when it was written."""
    root = Path(os.environ.get("FBM_REAL_DATA", Path(__file__).parents[4] / "shared" / "data"))
    folder = root / "davis2016-train-240p" / "hike"
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is absent")
    pictures = sorted((folder / "frames").iterdir())[:24]
    frames = np.stack([cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in pictures])
    truth = np.stack([cv2.imread(str(folder / "masks" / f"{path.stem}.png"), 0) > 0 for path in pictures])
    assert overlap(motion_masks(frames), truth) > 0.6


def test_settings_by_name(tmp_path: Path) -> None:
    def unlc(*more: str) -> UNLC:
        return load(Prepare, None, [f"input={tmp_path}", f"output={tmp_path}", *more]).masks.unlc

    assert unlc() == unlc("masks.unlc=fast") == UNLC()
    assert unlc("masks.unlc=paper") == UNLC.paper() != UNLC()
    assert unlc("masks.unlc.voting.restart=0.1").voting.restart == 0.1
    with pytest.raises(ConfigError, match=r"masks\.unlc: Input should be 'fast', 'default' or 'paper' .got .slow"):
        unlc("masks.unlc=slow")


def test_the_papers_config_has_the_papers_settings() -> None:
    config = Path(__file__).parents[3] / "configs/prepare/paper.yaml"
    assert load(Prepare, config, ["input=a", "output=b"]).masks.unlc == UNLC.paper()
