"""What synthetic films show: motions that go where their labels say, true masks, cameras, light and noise."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import pytest

from data_tools.synthetic import photographs, things
from data_tools.synthetic.config import Background, Camera, Motion, Synthesize, Thing
from data_tools.synthetic.factors import Shot
from data_tools.synthetic.scene import Scene, compose, render

MOTIONS, THINGS, BACKGROUNDS = get_args(Motion), get_args(Thing), get_args(Background)


def scene(motion: str, thing: str = "box", seed: int = 0, camera: str = "static", **changes: Any) -> Scene:
    """A shot of 48 frames at full size, clean unless told otherwise."""
    background = BACKGROUNDS[seed % len(BACKGROUNDS)]
    shot = Shot(0, 0, 48, {"motion": motion, "object": thing, "background": background, "camera": camera})
    full: dict[str, Any] = {"noise": (0.0, 0.0), "flicker": 0.0} | changes
    return compose(Synthesize(output=Path("unused"), seed=seed, **full), seed, shot)


def masks_of(drawn: Scene) -> np.ndarray:
    return np.stack([mask for _, mask in render(drawn)])


def centres(masks: np.ndarray) -> np.ndarray:
    """(T, 2): x, y of each mask's centre."""
    return np.array([np.argwhere(mask)[:, ::-1].mean(axis=0) for mask in masks])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("motion", ["right", "left", "up", "down"])
def test_a_direction_moves_the_mask_where_it_says(motion: str, seed: int) -> None:
    axis, sign = {"right": (0, 1), "left": (0, -1), "up": (1, -1), "down": (1, 1)}[motion]
    way = centres(masks_of(scene(motion, THINGS[seed], seed, "moving")))
    for start in (0, 16, 32):  # any 16 frames show it
        step = way[start + 15] - way[start]
        assert sign * step[axis] > 8
        assert abs(step[1 - axis]) < 0.7 * abs(step[axis])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("thing", ["box", "figure"])
def test_growing_and_shrinking_change_the_area_and_not_the_place(thing: str, seed: int) -> None:
    for motion, sign in (("grow", 1), ("shrink", -1)):
        masks = masks_of(scene(motion, thing, seed))
        area = masks.sum(axis=(1, 2)).astype(float)
        assert sign * np.log(area[-1] / area[0]) > np.log(2.5)
        for start in (0, 16, 32):
            assert sign * np.log(area[start + 15] / area[start]) > np.log(1.2)
        assert np.hypot(*(centres(masks)[-1] - centres(masks)[0])) < 16


@pytest.mark.parametrize("seed", range(3))
def test_turning_turns_the_principal_axis_and_waving_does_not_travel(seed: int) -> None:
    masks = masks_of(scene("turn", "box", seed))
    angles = []
    for mask in masks:
        offsets = np.argwhere(mask)[:, ::-1] - centres(mask[None])[0]
        angles.append(0.5 * np.arctan2(2 * offsets.prod(axis=1).mean(), (offsets**2 @ (1, -1)).mean()))
    turned = np.unwrap(angles, period=np.pi)
    assert abs(np.rad2deg(turned[15] - turned[0])) > 25
    assert np.hypot(*(centres(masks)[-1] - centres(masks)[0])) < 8
    waving = masks_of(scene("wave", "box", seed))
    changed = (waving[1:] ^ waving[:-1]).sum(axis=(1, 2)) / waving[1:].sum(axis=(1, 2))
    assert changed.mean() > 0.03
    assert np.hypot(*(centres(waving)[:40].mean(axis=0) - centres(waving)[8:].mean(axis=0))) < 4


def test_limbs_swing_within_the_figure() -> None:
    parts = things.outlines("figure", np.random.default_rng(0))
    sprite = things.paint("figure", parts, 40.0, 128.0, np.random.default_rng(0))
    canvases = [sprite.draw(1.0, phase)[..., 3] > 127 for phase in (0.0, np.pi / 2, np.pi, 3 * np.pi / 2)]
    union, shared = np.logical_or.reduce(canvases), np.logical_and.reduce(canvases)
    assert shared.sum() < 0.75 * union.sum()
    middle = round(things.REACH * 40)
    assert shared[middle - 10 : middle, middle - 4 : middle + 4].all()  # the torso stays
    for canvas in canvases:
        assert cv2.connectedComponents(canvas.astype(np.uint8))[0] == 2  # one piece: no limb comes off
        assert not canvas[[0, -1]].any()  # the canvas holds it all
        assert not canvas[:, [0, -1]].any()


@pytest.mark.parametrize(("motion", "thing"), list(zip(MOTIONS, (*THINGS, *THINGS), strict=False)))
@pytest.mark.parametrize("camera", get_args(Camera))
def test_the_mask_is_where_the_thing_changes_the_picture(motion: str, thing: str, camera: str) -> None:
    drawn = scene(motion, thing, seed=THINGS.index(thing), camera=camera)
    edge = np.ones((9, 9), np.uint8)  # soft edge and lens reach a few pixels beyond half opacity
    agreement = []
    for (frame, mask), (empty, nothing) in zip(render(drawn), render(replace(drawn, thing=None)), strict=True):
        assert not nothing.any()
        changed = np.abs(frame.astype(int) - empty).max(axis=2)
        assert (changed[cv2.dilate(mask.astype(np.uint8), edge) == 0] == 0).all()
        inside = cv2.erode(mask.astype(np.uint8), edge, borderValue=1) == 1
        agreement.append((changed[inside] > 4).mean())
    assert np.mean(agreement) > 0.9


@pytest.mark.parametrize("thing", THINGS)
@pytest.mark.parametrize("motion", MOTIONS)
def test_things_cover_a_sensible_share_and_stay_mostly_inside(motion: str, thing: str) -> None:
    masks = masks_of(scene(motion, thing, seed=MOTIONS.index(motion)))
    share = masks.mean(axis=(1, 2))
    assert 0.02 < share.min() <= share.max() < 0.30
    # what the picture cuts off, seen in motion without change of shape: the area hardly varies
    if motion not in ("grow", "shrink"):
        assert share.min() > 0.6 * share.max()


@pytest.mark.parametrize("thing", [thing for thing in THINGS if thing != "figure"])  # it is tall, and made smaller
def test_the_thing_covers_what_is_asked(thing: str) -> None:
    drawn = scene("turn", thing, coverage=(0.2, 0.2))
    assert masks_of(drawn).mean(axis=(1, 2)) == pytest.approx(0.2, rel=0.15)


def test_edges_are_soft() -> None:
    parts = things.outlines("ball", np.random.default_rng(0))
    opacity = things.paint("ball", parts, 40.0, 128.0, np.random.default_rng(0)).draw(0.0, 0.0)[..., 3]
    partial = ((opacity > 0) & (opacity < 255)).sum()
    assert 0.5 < partial / (2 * np.pi * 40) < 3  # about one pixel wide, all around


@pytest.mark.parametrize("seed", range(3))
def test_only_a_moving_camera_moves_the_background(seed: int) -> None:
    for camera, moves in (("static", False), ("moving", True)):
        empty = replace(scene("right", "box", seed, camera), thing=None)
        frames = [frame for frame, _ in render(empty)]
        difference = np.abs(frames[0].astype(int) - frames[-1]).mean()
        assert (difference > 3) == moves
        assert moves or difference == 0


def test_the_camera_never_sees_past_the_plate() -> None:
    for seed in range(20):
        drawn = scene("turn", "ball", seed, "moving")
        height, width = drawn.plate.shape[:2]
        corners = np.array([[0, 0, 1], [drawn.size[1] - 1, drawn.size[0] - 1, 1]]).T
        seen = drawn.camera @ corners  # (T, x/y, first/last corner)
        assert seen[:, :, 0].min() >= -1e-9
        assert seen[:, 0, 1].max() <= width - 1 + 1e-9
        assert seen[:, 1, 1].max() <= height - 1 + 1e-9


def test_noise_and_flicker_are_as_strong_as_asked() -> None:
    quiet = replace(scene("right", noise=(3.0, 3.0)), thing=None)
    stack = np.stack([frame for frame, _ in render(quiet)]).astype(float)
    middle = (stack.mean(axis=0) > 20) & (stack.mean(axis=0) < 235)  # away from black and white, which clip
    assert abs(stack.std(axis=0)[middle].mean() - 3) < 0.3
    lit = replace(scene("right", flicker=0.1), thing=None)
    level = np.array([frame.mean() for frame, _ in render(lit)])
    assert 0.03 < (level.max() - level.min()) / level.mean() < 0.25


def test_distractors_change_the_picture_and_not_the_mask() -> None:
    drawn = scene("turn", "ball", distractors=3)
    plain = replace(drawn, distractors=())
    outside = []
    for (frame, mask), (other, same) in zip(render(drawn), render(plain), strict=True):
        assert (mask == same).all()
        outside.append((np.abs(frame.astype(int) - other).max(axis=2) > 20).mean())
    assert 0.003 < np.mean(outside) < 0.06


def test_a_background_class_is_not_one_picture() -> None:
    for background in BACKGROUNDS:
        small = []
        for seed in range(6):
            shot = Shot(0, 0, 2, {"motion": "turn", "object": "box", "background": background, "camera": "static"})
            plate = compose(Synthesize(output=Path("unused"), seed=seed), 0, shot).plate
            small.append(cv2.resize(plate, (22, 18), interpolation=cv2.INTER_AREA).astype(float))
        assert min(np.abs(a - b).mean() for a, b in combinations(small, 2)) > 5


def test_no_photograph_serves_as_background_and_as_skin() -> None:
    behind = {name for names in photographs.BACKGROUNDS.values() for name in names}
    skins = {name for names in photographs.SKINS.values() for name in names}
    assert not behind & skins
    assert set(photographs.BACKGROUNDS) == set(BACKGROUNDS)
    assert set(photographs.SKINS) == set(THINGS)
    for name in behind | skins:
        image = photographs.load(name)
        assert image.dtype == np.uint8
        assert image.shape[2] == 3
        assert image.std() > 10


def test_a_photograph_that_is_not_installed_is_named() -> None:
    with pytest.raises(ValueError, match="'mona_lisa' is not in the installed scikit-image"):
        photographs.load("mona_lisa")
