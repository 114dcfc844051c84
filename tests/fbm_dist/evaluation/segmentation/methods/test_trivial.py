"""Baselines, and uNLC as a method."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_tools.flow import OpticalFlow, grey_frames
from data_tools.unlc import UNLC, motion_masks
from fbm_dist.evaluation.segmentation.folders.find import find_sequences
from fbm_dist.evaluation.segmentation.folders.sequence import Sequence
from fbm_dist.evaluation.segmentation.methods.motion import MotionMasks
from fbm_dist.evaluation.segmentation.methods.trivial import AllForeground, CentreBox, ResidualFlow, residual
from tests.fbm_dist.evaluation.segmentation.drawn import scene


@pytest.fixture(scope="module")
def hike(films: Path) -> Sequence:
    return find_sequences([films], names=["hike"])[0]


def test_all_and_centre(hike: Sequence) -> None:
    assert [score.shape for score in AllForeground().scores(hike)] == [(48, 64)] * 6
    assert all((score == 1).all() for score in AllForeground().scores(hike))
    first = next(iter(CentreBox().scores(hike)))
    assert first.sum() == 24 * 32
    assert first[12:36, 16:48].all()


def test_residual_flow_finds_what_moves(hike: Sequence) -> None:
    scores = list(ResidualFlow(240).scores(hike))
    assert len(scores) == 6
    for index, score in enumerate(scores):
        found, truth = score > 0.5, scene(index)[1]
        assert found[truth].mean() > 0.9
        assert found[~truth].mean() < 0.25, "DIS smears small things over their surroundings"
        assert score.max() == 1


def test_residual_flow_of_stillness_is_nothing() -> None:
    grey = grey_frames(np.stack([scene(0)[0]] * 2), (48, 64))
    assert not residual(grey, OpticalFlow("medium")).any()


def test_a_film_of_one_frame_has_no_flow(hike: Sequence) -> None:
    assert not next(iter(ResidualFlow(240).scores(hike.first(1)))).any()


def test_unlc_is_what_prepare_makes(hike: Sequence) -> None:
    """All frames take part, the annotated ones come out; frames below the working side are left as they are."""
    sparse = Sequence(hike.data, hike.name, hike.frames, {i: hike.truth[i] for i in (1, 4)})
    found = list(MotionMasks(UNLC(), 240).scores(sparse))
    expected = motion_masks(np.stack([hike.frame(i) for i in range(6)]), UNLC())
    assert len(found) == 2
    assert (found[0] == expected[1]).all()
    assert (found[1] == expected[4]).all()
    assert next(iter(MotionMasks(UNLC(), 24).scores(sparse))).shape == (24, 32)
