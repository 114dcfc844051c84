"""What a family's config says of clips: which it trains on, and how its encoder wants them in probes and evaluation."""

from __future__ import annotations

from typing import Any

import pytest

from fbm_dist.objectives.classifier.config import ClassifierConfig
from fbm_dist.objectives.family import Family
from fbm_dist.objectives.fbm.config import AutoencoderConfig, FBMConfig
from fbm_dist.schema import ClipSpec


@pytest.mark.parametrize(
    ("clip", "told"),
    [
        ({"size": 128}, "data.clip.size is 128, but the objective's size is 64; make them equal"),
        ({"frames": 8}, "data.clip.frames is 8, but the objective's frames is 16"),
        ({"negative": True}, r"data.clip.frames is 17 \(with the negative\), but the objective's frames is 16"),
        ({"mask": False}, "the family 'fbm' learns from masks, and data.clip.mask is false; set data.clip.mask=true"),
    ],
)
def test_clips_that_do_not_suit_are_refused_by_name(clip: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        FBMConfig(size=64).check_clip(ClipSpec.model_validate({"size": 64} | clip))


def test_clips_that_suit_are_taken() -> None:
    FBMConfig(size=64).check_clip(ClipSpec(size=64))
    FBMConfig(size=64).check_clip(ClipSpec(size=64, mask=False, use_truth_as_mask=True))
    AutoencoderConfig(size=64).check_clip(ClipSpec(size=64, mask=False))
    ClassifierConfig(trunk=FBMConfig(size=64)).check_clip(ClipSpec(size=64, mask=False))  # its loss needs none


@pytest.mark.parametrize(
    ("frames", "clip", "looked_at"),
    [
        (16, {"frames": 16, "stride": 2, "mirror": 0.5}, {"frames": 16, "stride": 2}),
        (1, {"frames": 3, "offsets": (0, 1, 20), "negative": True}, {"frames": 1, "stride": 1}),
        (4, {"frames": 4, "within": 20}, {"frames": 4, "stride": 5}),
        (5, {"frames": 3, "offsets": (0, 1, 3)}, {"frames": 5, "stride": 1}),
        (1, {"frames": 1, "resize": "box", "mask": True}, {"frames": 1, "resize": "crop"}),
    ],
)
def test_the_encoder_is_shown_evenly_spaced_frames(
    frames: int, clip: dict[str, Any], looked_at: dict[str, Any]
) -> None:
    family = Family(family="some", frames=frames, size=64)
    found = family.pictures(ClipSpec.model_validate({"size": 64} | clip))
    assert found.length == frames
    assert found == ClipSpec.model_validate({"size": 64} | looked_at).pictures
    assert ClipSpec.model_validate(found.model_dump()) == found, "a valid one"
