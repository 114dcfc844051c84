"""First votes: normalisation, border, and the appearance fallback with the right sign."""

from __future__ import annotations

import numpy as np
import pytest

from data_tools.unlc.appearance import appearance_saliency
from data_tools.unlc.config import UNLC, Motion
from data_tools.unlc.masks import first_votes
from data_tools.unlc.saliency import motion_saliency, normalise


def test_normalises_by_the_shot_or_by_the_frame() -> None:
    saliency = np.zeros((2, 40, 40), np.float32)
    saliency[0, 20, 20], saliency[1, 20, 20] = 8, 2
    by_shot = normalise(saliency, Motion(scale="shot"))
    assert (by_shot[0, 20, 20], by_shot[1, 20, 20]) == (1, 0.25)
    by_frame = normalise(saliency, Motion(scale="frame"))
    assert (by_frame[0, 20, 20], by_frame[1, 20, 20]) == (1, 1)


def test_the_border_has_no_vote() -> None:
    votes = normalise(np.ones((1, 40, 60), np.float32), Motion(border=0.125))
    assert votes[:, 5:-5, 5:-5].min() == 1
    votes[:, 5:-5, 5:-5] = 0
    assert not votes.any()


def test_noise_is_not_stretched() -> None:
    noise = np.full((1, 40, 40), 0.05, np.float32)
    assert normalise(noise, Motion(floor=0.25)).max() == pytest.approx(0.2)
    assert normalise(noise, Motion(floor=0)).max() == 1


@pytest.mark.parametrize("brightness", [240, 10])
def test_an_object_is_salient_and_ground_is_not(brightness: int) -> None:
    frames = np.full((2, 90, 120, 3), 120, np.uint8)
    frames[:, 30:60, 45:80] = brightness
    saliency = appearance_saliency(frames, (90, 120))
    assert saliency[:, 35:55, 50:75].min() > 0.6  # regions may take in a little of the ground
    assert saliency[:, 35:55, 50:75].mean() > 0.8
    assert saliency[:, :20].max() < 0.2
    assert saliency.max() <= 1


def test_appearance_votes_where_no_motion_is_dominant() -> None:
    """Frames without any relation: flow is chaos, and the bright square is all there is to go by."""
    generator = np.random.default_rng(0)
    frames = generator.integers(0, 60, (6, 96, 96, 3), dtype=np.uint8)
    frames[:, 36:60, 36:60] += 180
    settings = UNLC.paper().model_copy(
        update={"motion": UNLC.paper().motion.model_copy(update={"static": 0.0, "translating": 1.0})}
    )
    _, share = motion_saliency(frames, settings.motion)
    assert share < 0.5
    votes = first_votes(frames, settings)
    assert votes[:, 44:56, 44:56].mean() > 0.8
    assert votes[:, 15:30].mean() < 0.3


def test_frames_without_motion_of_their_own_have_no_saliency() -> None:
    frame = np.random.default_rng(0).integers(0, 255, (1, 64, 64, 3), dtype=np.uint8)
    saliency, share = motion_saliency(np.repeat(frame, 4, 0), Motion())
    assert share == 1
    assert saliency.max() < 1e-3
