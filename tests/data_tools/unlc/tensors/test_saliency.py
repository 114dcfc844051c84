"""Motion saliency of a shot and first votes, beside the room above."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from data_tools.flow import flow_size, grey_frames
from data_tools.unlc import masks as one
from data_tools.unlc import saliency as cpu
from data_tools.unlc.config import UNLC, Motion
from data_tools.unlc.tensors.flow import dis
from data_tools.unlc.tensors.masks import first_votes
from data_tools.unlc.tensors.saliency import motion_saliency, normalise
from tests.moving_disc import scene


@pytest.mark.parametrize("settings", [Motion(), UNLC.paper().motion, Motion(box=4, scale="frame")])
def test_equals_the_other(settings: Motion) -> None:
    frames, _ = scene(7, (2, 1))
    grey = torch.from_numpy(grey_frames(frames, flow_size(*frames.shape[1:3], settings.size, settings.aspect)))
    found, share = motion_saliency(grey, settings, dis(settings))
    expected, expected_share = cpu.motion_saliency(frames, settings)
    assert share == pytest.approx(expected_share)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-3, atol=5e-3)
    np.testing.assert_allclose(
        normalise(found, settings).numpy(), cpu.normalise(expected, settings), rtol=1e-3, atol=2e-3
    )


def test_no_saliency_is_not_divided_by() -> None:
    nothing = torch.zeros(2, 40, 40)
    assert not normalise(nothing, Motion(floor=0.0)).any()
    assert not normalise(nothing, Motion(floor=0.0, scale="frame")).any()


def test_appearance_votes_where_no_motion_is_dominant() -> None:
    generator = np.random.default_rng(0)
    frames = generator.integers(0, 60, (4, 96, 96, 3), dtype=np.uint8)
    frames[:, 36:60, 36:60] += 180
    motion = UNLC.paper().motion.model_copy(update={"static": 0.0, "translating": 1.0})
    settings = UNLC.paper().model_copy(update={"motion": motion})
    found = first_votes(torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous(), settings, "dis").numpy()
    np.testing.assert_allclose(found, one.first_votes(frames, settings), atol=1e-6)
    assert found[:, 44:56, 44:56].mean() > 0.8
