"""The config of the motion-mask network: which clips it takes, how large its mask is, and how frames are cut for it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from fbm_dist.objectives.motion_mask.config import MotionMaskConfig
from fbm_dist.schema import ClipSpec


@pytest.mark.parametrize(("size", "side"), [(227, 56), (180, 44), (131, 32), (99, 24), (67, 16)])
def test_the_mask_keeps_the_papers_proportion(size: int, side: int) -> None:
    assert MotionMaskConfig(size=size).mask_side == side
    assert MotionMaskConfig(size=size, mask_size=30).mask_side == 30


def test_clips_that_it_takes() -> None:
    config = MotionMaskConfig(size=99)
    config.check_clip(ClipSpec(frames=1, size=99, resize="box", mirror=0.5, frames_per_shot=5))
    config.check_clip(ClipSpec(frames=1, size=99))  # the whole frame will do
    config.check_clip(ClipSpec(frames=1, size=99, mask=False, use_truth_as_mask=True))


@pytest.mark.parametrize(
    ("clip", "said"),
    [
        ({"frames": 16}, r"data\.clip\.frames is 16, but the objective's frames is 1"),
        ({"negative": True}, r"data\.clip\.frames is 2 \(with the negative\)"),
        ({"size": 128}, r"data\.clip\.size is 128, but the objective's size is 99"),
        ({"mask": False}, r"learns from masks, and data\.clip\.mask is false; set data\.clip\.mask=true"),
    ],
)
def test_clips_that_it_refuses(clip: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        MotionMaskConfig(size=99).check_clip(ClipSpec(**{"frames": 1, "size": 99} | clip))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"negative": 0.8}, r"negative=0\.8 is above positive=0\.7"),
        ({"frames": 16}, "frames"),
        ({"size": 66}, "size"),
        ({"norm": "layer"}, "norm"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_what_it_cannot_be(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        MotionMaskConfig(**settings)


def test_features_see_the_centre_and_segmentation_the_whole_frame() -> None:
    config = MotionMaskConfig(size=99)
    trained = ClipSpec(frames=1, size=99, resize="box", mirror=0.5, frames_per_shot=5)
    assert config.pictures(trained).resize == "crop"
    whole = config.segmented(trained)
    assert (whole.resize, whole.frames, whole.size, whole.mirror, whole.mask) == ("squash", 1, 99, 0, False)
    cropped = trained.model_copy(update={"resize": "crop", "crop_share": 0.9, "crop_at": "random"})
    ClipSpec.model_validate(config.segmented(cropped).model_dump())  # crop_share belongs to resize=crop
