"""What is cut out of a stored clip: every spacing of frames within its bounds, random numbers by seed, epoch and position alone."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from fbm_dist.data.order.arrangement import Shuffled
from fbm_dist.data.order.draw import Draw, moment, negative
from fbm_dist.data.order.plan import Order, Pass
from fbm_dist.schema import ClipSpec, Degrade


def test_random_numbers_depend_on_seed_epoch_and_position_alone() -> None:
    draws = [Draw.at(seed, epoch, position) for seed in (0, 1) for epoch in (0, 1) for position in range(100)]
    for name in Draw.__dataclass_fields__:
        numbers = [getattr(draw, name) for draw in draws]
        assert len(set(numbers)) == 400
        assert abs(np.mean(numbers) - 0.5) < 0.08
        assert 0 <= min(numbers) < 0.02 < 0.98 < max(numbers) < 1
    matrix = np.array([[getattr(draw, name) for name in Draw.__dataclass_fields__] for draw in draws])
    assert np.abs(np.corrcoef(matrix.T) - np.eye(9)).max() < 0.2
    clips = Shuffled(50, 0)
    one = Order(clips, 0, 8, 4, rank=1, world_size=2).draw(77)
    assert one == Order(clips, 0, 24, 24).draw(77) == Draw.at(0, 1, 27)


def test_the_numbers_of_runs_that_were_started_stay() -> None:
    known = Draw(
        window=0.8622901156044929, reverse=0.5819818459197234, mirror=0.37774027727159554, y=0.49630304054230623,
        x=0.28201926748495076, scale=0.20817953525644084, negative=0.11446853891714526, order=0.31016588581329985,
        degrade=0.22334272601172434,
    )  # fmt: skip
    assert Draw.at(0, 1, 27) == known


def test_a_pass_draws_how_masks_are_made_worse_and_nothing_else() -> None:
    draws = [Pass(400, 8, rank=rank, world_size=2).draw(position) for rank in (0, 1) for position in range(400)]
    assert draws[:400] == draws[400:]
    numbers = [draw.degrade for draw in draws[:400]]
    assert len(set(numbers)) == 400
    assert min(np.histogram(numbers, 4, (0, 1))[0]) > 70
    assert {replace(draw, degrade=0.5) for draw in draws} == {Draw(0.5, 1.0, 1.0)}


def test_a_window_stays_within_the_stored_clip_and_reaches_both_ends() -> None:
    spec = ClipSpec(frames=4, stride=3, reverse=0.5, mirror=0.25)
    taken = [moment(spec, 14, Draw.at(0, 0, position)) for position in range(400)]
    starts = Counter(m.frames[0] for m in taken)
    assert sorted(starts) == [0, 1, 2, 3, 4]
    assert min(starts.values()) > 50
    assert all(np.diff(m.frames).tolist() == [3, 3, 3] for m in taken)
    assert 0.4 < np.mean([m.shown[0] > m.shown[1] for m in taken]) < 0.6
    assert 0.17 < np.mean([m.mirror for m in taken]) < 0.33
    centre = moment(spec.model_copy(update={"window": "centre"}), 14, Draw(0.9, 0.0, 0.9))
    assert (centre.frames, centre.shown) == ((2, 5, 8, 11), (11, 8, 5, 2))


def test_offsets_are_taken_from_one_start() -> None:
    spec = ClipSpec(frames=3, offsets=(0, 1, 20), reverse=0.5)
    assert spec.span == 21
    taken = [moment(spec, 24, Draw.at(0, 0, position)) for position in range(300)]
    assert {m.frames[0] for m in taken} == {0, 1, 2, 3}
    assert {tuple(np.subtract(m.frames, m.frames[0])) for m in taken} == {(0, 1, 20)}
    assert {m.shown == m.frames for m in taken} == {True, False}  # reversed: t + n comes first


def test_random_frames_within_a_window_are_different_and_in_random_order() -> None:
    spec = ClipSpec(frames=4, within=20)
    assert spec.span == 20
    taken = [moment(spec, 23, Draw.at(0, 0, position)) for position in range(2000)]
    assert all(len(set(m.frames)) == 4 and list(m.frames) == sorted(m.frames) for m in taken)
    assert all(max(m.frames) - min(m.frames) < 20 and min(m.frames) >= 0 and max(m.frames) < 23 for m in taken)
    assert all(sorted(m.shown) == list(m.frames) for m in taken)
    orders = Counter(m.turn for m in taken)
    assert len(orders) == 24
    assert min(orders.values()) > 50
    free = ClipSpec(frames=4, within=20, window="centre")
    counts = Counter(frame for p in range(4000) for frame in moment(free, 20, Draw.at(1, 0, p)).frames)
    assert min(counts.values()) > 0.85 * 800
    assert max(counts.values()) < 1.15 * 800


def test_all_frames_of_a_window_in_random_order() -> None:
    assert sorted(moment(ClipSpec(frames=20, within=20), 20, Draw.at(0, 0, 3)).shown) == list(range(20))


def test_an_image_is_one_frame() -> None:
    assert moment(ClipSpec(frames=1), 1, Draw.at(0, 0, 0)).shown == (0,)
    assert {moment(ClipSpec(frames=1), 9, Draw.at(0, 0, p)).shown[0] for p in range(200)} == set(range(9))


def test_the_frame_of_another_film_is_any_of_its_own() -> None:
    found = [negative(5, Draw.at(0, 0, p), True, centre=False) for p in range(300)]
    assert {m.shown for m in found} == {(0,), (1,), (2,), (3,), (4,)}
    assert all(m.mirror for m in found)
    assert negative(5, Draw.at(0, 0, 0), False, centre=True).shown == (2,)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"frames": 3, "offsets": [0, 1]}, "offsets are 2 frames, and frames is 3"),
        ({"frames": 2, "offsets": [1, 2]}, "must begin with 0 and rise"),
        ({"frames": 2, "offsets": [0, 0]}, "must begin with 0 and rise"),
        ({"frames": 4, "within": 3}, "within=3 does not hold 4 different frames"),
        ({"frames": 2, "within": 9, "stride": 2}, "three ways to space the frames"),
        ({"frames": 1, "frames_per_shot": 5, "negative": True}, "frames_per_shot takes single frames"),
        ({"frames": 1, "frames_per_shot": 5, "within": 3}, "frames_per_shot takes single frames"),
        ({"resize": "box", "mask": False}, "resize=box cuts around the mask"),
        ({"crop_share": 0.9}, "belong to resize=crop"),
        ({"degrade": {"kind": "boundary"}}, "kind=boundary needs kernel"),
        ({"degrade": {"kind": "truncate"}}, "kind=truncate needs share"),
        ({"degrade": {"kind": "box", "kernel": 3}}, "kernel belongs to kind=boundary, and kind is box"),
        ({"degrade": {"kind": "boundary", "kernel": 3, "share": 0.1}}, "share belongs to kind=truncate"),
        ({"degrade": {"kind": "boundary", "kernel": 4}}, "no middle pixel; give an odd one, 3 or 5"),
        ({"degrade": {"kind": "boundary", "kernel": 0}}, "greater than or equal to 1"),
        ({"degrade": {"kind": "truncate", "share": 1.0}}, "less than 1"),
        ({"degrade": {"kind": "boundary", "kernel": 33}, "size": 32}, "larger than a frame of size=32"),
        ({"degrade": {"kind": "box"}, "mask": False}, "degrade changes masks, and there are none"),
        ({"degrade": {"kind": "full"}, "resize": "box"}, "give another resize"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        ClipSpec.model_validate_json(json.dumps(settings))


def test_looks_and_evaluation_leave_nothing_to_chance() -> None:
    spec = ClipSpec(frames=4, within=20, reverse=0.5, mirror=0.5, resize="crop", crop_share=0.9, crop_at="random")
    plain = ClipSpec.model_validate(spec.plain.model_dump())  # it is a valid one
    moments = {moment(plain, 40, Draw.at(0, 0, position)) for position in range(20)}
    assert [m.shown for m in moments] == [(12, 17, 22, 27)]
    assert plain.length == spec.length


def test_looks_keep_what_makes_masks_worse() -> None:
    assert ClipSpec(degrade=Degrade(kind="box")).plain.degrade == Degrade(kind="box")


def test_features_need_neither_masks_nor_other_films() -> None:
    spec = ClipSpec(
        frames=3,
        offsets=(0, 1, 9),
        negative=True,
        resize="box",
        truth=True,
        degrade=Degrade(kind="truncate", share=0.5),
    )
    found = ClipSpec.model_validate(spec.pictures.model_dump())
    assert (found.length, found.mask, found.truth, found.resize, found.offsets) == (3, False, False, "crop", (0, 1, 9))
