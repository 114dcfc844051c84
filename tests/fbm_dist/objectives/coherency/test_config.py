"""What the config refuses, and which clips each loss takes."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from fbm_dist.objectives.coherency.config import CoherencyConfig
from fbm_dist.schema import ClipSpec

LOSSES = ("siamese", "quadruplet", "sfa", "triplet")


def config(kind: str, **settings: Any) -> CoherencyConfig:
    return CoherencyConfig.model_validate({"size": 64, "loss": {"kind": kind}} | settings)


def spec(**settings: Any) -> ClipSpec:
    return ClipSpec.model_validate({"size": 64, "mask": False} | settings)


GOOD: dict[str, dict[str, Any]] = {
    "siamese": {"frames": 2, "offsets": (0, 1), "negative": True},
    "quadruplet": {"frames": 3, "offsets": (0, 1, 20), "negative": True},
    "sfa": {"frames": 3, "offsets": (0, 2, 9)},
    "triplet": {"frames": 2, "offsets": (0, 30), "negative": True, "reverse": 0.5},
}


@pytest.mark.parametrize("kind", LOSSES)
def test_clips_with_the_roles_of_the_loss_are_taken(kind: str) -> None:
    config(kind).check_clip(spec(**GOOD[kind]))
    assert config(kind).pictures(spec(**GOOD[kind])).length == 1
    if kind != "sfa":
        any_film = config(kind, negatives="any")
        any_film.check_clip(spec(**GOOD[kind] | {"negative": False}))
        with pytest.raises(
            ValueError, match=r"data.clip.negative is true, but .*other clips of the batch.*negative=false"
        ):
            any_film.check_clip(spec(**GOOD[kind]))


@pytest.mark.parametrize(
    ("kind", "clip", "told"),
    [
        (
            "quadruplet",
            {"frames": 16},
            r"data.clip.frames is 16 and data.clip.offsets \[\], but the loss 'quadruplet' takes query, neighbour, far and a frame of "
            r"another film; set data.clip.frames=3 data.clip.offsets=\[0, 1, 20\] data.clip.negative=true",
        ),
        ("quadruplet", {"frames": 3, "negative": True}, r"offsets \[\], but"),
        ("quadruplet", GOOD["quadruplet"] | {"negative": False}, "data.clip.negative is false, but"),
        ("quadruplet", GOOD["quadruplet"] | {"reverse": 0.5}, "in this order; set data.clip.reverse=0"),
        ("quadruplet", GOOD["quadruplet"] | {"size": 96}, "data.clip.size is 96, but the objective's size is 64"),
        ("siamese", GOOD["quadruplet"], r"data.clip.frames is 3 .* set data.clip.frames=2 data.clip.offsets=\[0, 1\]"),
        ("siamese", {"frames": 2, "within": 9, "negative": True}, r"offsets \[\], but"),
        ("sfa", GOOD["quadruplet"], "data.clip.negative is true, but the loss 'sfa' takes query, neighbour, far; set"),
        ("triplet", GOOD["sfa"], r"set data.clip.frames=2 data.clip.offsets=\[0, 20\] data.clip.negative=true"),
    ],
)
def test_other_clips_are_refused_by_name(kind: str, clip: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        config(kind).check_clip(spec(**clip))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"loss": {"kind": "sfa"}, "negatives": "any"}, "the loss 'sfa' knows no other film"),
        ({"loss": {"kind": "sfa"}, "gather_negatives": True}, "the loss 'sfa' knows no other film"),
        ({"loss": {"kind": "quadruplet", "hinge": "batch"}, "gather_negatives": True}, "set loss.hinge=tuple"),
        ({"loss": {"kind": "siamese", "hinge": "batch"}}, "hinge"),
        ({"loss": {"kind": "triplet", "weight": 2.0}}, "weight"),
    ],
)
def test_what_cannot_be_is_no_config(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        CoherencyConfig.model_validate({"size": 64} | settings)
