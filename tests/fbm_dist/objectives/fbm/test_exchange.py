"""Another film's thing that goes the way of a clip's own, and the term that keeps the object out of the motion features by it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from fbm_dist.clip import Clip
from fbm_dist.objectives.fbm.config import FBMConfig, Trimap
from fbm_dist.objectives.fbm.exchange import exchanged, places
from fbm_dist.objectives.fbm.scene import emptied
from tests.fbm_dist.objectives.fbm.test_scene import build, rows
from tests.fbm_dist.objectives.learning import train


def drawn(boxes: list[list[tuple[int, int, int, int]]], size: int = 64) -> Clip:
    """A clip for each list of boxes (top, left, height, width), one a frame: clip i's thing is (i + 1) / 4, before -1."""
    frames = len(boxes[0])
    video, mask = torch.full((len(boxes), 3, frames, size, size), -1.0), torch.zeros(len(boxes), 1, frames, size, size)
    for i, way in enumerate(boxes):
        for t, (top, left, height, width) in enumerate(way):
            video[i, :, t, top : top + height, left : left + width] = (i + 1) / 4
            mask[i, :, t, top : top + height, left : left + width] = 1
    indices = torch.arange(frames).repeat(len(boxes), 1)
    return Clip(video, mask, None, indices, torch.arange(len(boxes)), ("a",) * len(boxes), {})


def test_the_other_thing_goes_the_same_way_in_its_own_size() -> None:
    """A tall box that moves right, a small square that moves down: each is seen on the other's path, to the pixel."""
    tall = [(10, 4 + t, 21, 7) for t in range(16)]
    small = [(3 + 2 * t, 30, 9, 9) for t in range(16)]
    made = exchanged(drawn([tall, small]), FBMConfig(size=64))
    assert made.exists.all()
    for t in range(16):
        expected = torch.full((64, 64), -1.0)
        expected[16:25, 3 + t : 12 + t] = 2 / 4  # about the tall box's centre (20, 7 + t)
        torch.testing.assert_close(made.video[0, 0, t], expected, atol=1e-4, rtol=0)
        expected = torch.full((64, 64), -1.0)
        top = 7 + 2 * t - 10  # a part of it is above the picture at first
        expected[max(top, 0) : top + 21, 31:38] = 1 / 4
        torch.testing.assert_close(made.video[1, 1, t], expected, atol=1e-4, rtol=0)


def test_it_grows_as_the_own_thing_does() -> None:
    sides = [8 + 2 * (t // 2) for t in range(16)]  # 8 to 22
    grows = [(32 - side // 2, 32 - side // 2, side, side) for side in sides]
    still = [(20, 20, 12, 12)] * 16
    made = exchanged(drawn([grows, still]), FBMConfig(size=64)).video[0, 0]
    areas = ((made + 1) / 1.5).sum(dim=(1, 2))  # of the thing, 2/4 on -1; parts of pixels count as such
    usual = sorted(sides)[7]  # the lower of the two in the middle
    for t in (0, 5, 9, 15):
        assert areas[t].item() ** 0.5 == pytest.approx(12 * sides[t] / usual, abs=0.8)  # a pixel is one sample
    assert (areas[2::2] > areas[:-2:2]).all()


def test_its_own_scene_stays(make_clip: Any) -> None:
    """Away from both things it is the clip; where its own was it is the scene, as seen at other times."""
    clip = make_clip(3)
    made, (mask, empty) = exchanged(clip, FBMConfig()), emptied(clip, FBMConfig())
    covered = (made.video - empty).abs().amax(dim=1, keepdim=True) > 1e-6
    assert 0.02 < covered.float().mean() < 0.08, "another square, of 1/16 of the picture"
    away = ~covered & (mask == 0)
    torch.testing.assert_close(torch.where(away, made.video, 0), torch.where(away, clip.video, 0), atol=1e-5, rtol=0)


def test_no_exchange_without_another_film_or_a_place_in_each_frame(make_clip: Any) -> None:
    clip = make_clip(3)
    assert clip.mask is not None
    assert not exchanged(replace(clip, film=torch.zeros(3, dtype=torch.long)), FBMConfig()).exists.any()
    clip.mask[1, :, 3] = 0  # no way to follow; its thing can be lent all the same
    made = exchanged(clip, FBMConfig())
    assert made.exists.tolist() == [True, False, True]
    clip.mask[1, :, 8] = 0  # nothing to lend to clip 0
    made = exchanged(clip, FBMConfig())
    assert made.exists.tolist() == [False, False, True]
    assert made.video.isfinite().all()


def test_what_a_trimap_does_not_know_has_no_place(make_clip: Any) -> None:
    clip = make_clip(2)
    assert clip.mask is not None
    sure = exchanged(clip, FBMConfig(trimap=Trimap()))
    clip.mask[:, :, :, 60:] = 0.5
    unsure = exchanged(clip, FBMConfig(trimap=Trimap()))
    torch.testing.assert_close(sure.video[:, :, :, :60], unsure.video[:, :, :, :60])


def test_centres_and_sizes_by_hand() -> None:
    mask = torch.zeros(1, 1, 2, 5, 9)
    mask[0, 0, 0, 1:3, 4:8] = 1
    found = places(mask)
    torch.testing.assert_close(found.centre[0, 0], torch.tensor([1.5 / 4, -0.5 / 2]))
    assert found.side[0, 0].item() == pytest.approx(8**0.5)
    assert found.seen.tolist() == [[True, False]]
    assert found.centre.isfinite().all()


def test_the_term_teaches_the_motion_features_alone(make_clip: Any) -> None:
    clip = make_clip(3)
    with_term, without = build(object_share=2.0), build()
    loss = with_term("model", clip)
    plain = without("model", clip)
    assert set(loss.terms) == set(plain.terms) | {"object_share"}
    torch.testing.assert_close(loss.total.detach(), plain.total.detach() + 2.0 * loss.terms["object_share"])
    (loss.total - plain.total.detach()).backward()
    plain.total.backward()
    ours, theirs = (o.encoder().mapping.convolution.weight.grad for o in (with_term, without))
    assert ours is not None
    assert theirs is not None
    assert rows(torch.where((ours - theirs).abs() > 1e-7, ours, 0), with_term) == {
        "background": False,
        "foreground": False,
        "motion": True,
    }


def test_the_term_is_learnt_away_on_a_batch(make_clip: Any) -> None:
    """And not by features that say nothing: it is the share that falls."""
    curve = train(build(object_share=10.0), make_clip(4), steps=25, lr=2e-3)
    shares = [step["object_share"] for step in curve]
    assert shares[-1] < 0.5 * shares[0]


def test_one_film_alone_has_no_share(make_clip: Any) -> None:
    objective = build(object_share=1.0, scene_share=1.0)
    terms = objective("model", replace(make_clip(3), film=torch.zeros(3, dtype=torch.long))).terms
    assert terms["object_share"] == 0
    assert terms["scene_share"] == 0
