"""True masks go with the frames that they were drawn for, or with none."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from data_tools.sources.boxes import Box
from data_tools.sources.films import Film
from data_tools.truth import Boxes, Pictures, true_masks
from data_tools.videos import Unusable


def draw(path: Path, mask: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)
    return path


def test_masks_belong_to_the_frames_of_their_names(tmp_path: Path) -> None:
    mask = np.zeros((72, 96), bool)
    for i in range(10):
        draw(tmp_path / f"frames/{i:05d}.png", mask)
        if i < 5 or i == 8:
            draw(tmp_path / f"masks/{i:05d}.png", mask)
    (tmp_path / "masks/00003.png").rename(tmp_path / "masks/00040.png")
    found = true_masks(Film("a", tmp_path / "frames", "frames", tmp_path / "masks"))
    assert isinstance(found, Pictures)
    assert [path.stem if path else "" for path in found.pictures[:5]] == ["00000", "00001", "00002", "", "00004"]
    assert found.pictures[7:] == [None, tmp_path / "masks/00008.png", None]
    assert found.count == 5
    assert found.strip([0, 1, 2], (72, 96), (36, 48)) is not None
    assert found.strip([2, 3], (72, 96), (36, 48)) is None
    assert found.strip([9, 10], (72, 96), (36, 48)) is None, "a frame beyond them has none"


def test_masks_of_other_names_count_in_order_only_where_there_are_as_many(tmp_path: Path) -> None:
    masks = [draw(tmp_path / f"masks/{i}.png", np.ones((4, 4), bool)) for i in range(3)]
    for i in range(3):
        draw(tmp_path / f"frames/f{i}.png", np.ones((4, 4), bool))
    one = Film("a", tmp_path / "frames", "frames", tmp_path / "masks")
    found = true_masks(one)
    assert isinstance(found, Pictures)
    assert found.pictures == masks
    masks[1].unlink()
    found = true_masks(one)
    assert isinstance(found, Pictures)
    assert found.pictures == [None, None, None]
    assert found, "there are masks, of whatever frames"
    assert found.count == 0


def test_a_film_without_masks(tmp_path: Path) -> None:
    assert not true_masks(Film("a", tmp_path / "a.mp4", "video"))
    (tmp_path / "masks").mkdir()
    assert not true_masks(Film("a", tmp_path / "a.mp4", "video", tmp_path / "masks"))


def test_pictures_of_every_kind_become_masks(tmp_path: Path) -> None:
    inside = np.zeros((40, 60), bool)
    inside[10:30, 20:40] = True
    numbered = Image.fromarray(inside.astype(np.uint8) * 3, "L")
    coloured = np.zeros((40, 60, 3), np.uint8)
    coloured[inside] = (0, 0, 128)
    paths = [draw(tmp_path / "0.png", inside), tmp_path / "1.png", draw(tmp_path / "2.png", coloured)]
    numbered.save(paths[1])
    strip = Pictures(paths).strip([0, 1, 2], (80, 120), (20, 30))
    assert strip is not None
    assert strip.dtype == np.uint8
    for mask in strip:
        assert np.array_equal(mask == 255, inside[::2, ::2])


def test_masks_that_cannot_be_used(tmp_path: Path) -> None:
    path = draw(tmp_path / "7.png", np.ones((40, 40), bool))
    with pytest.raises(Unusable, match=r"the true mask 7\.png has another shape than the frames"):
        Pictures([path]).strip([0], (40, 60), (20, 30))
    path.write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(Unusable, match=r"the true mask 7\.png cannot be read: ") as caught:
        Pictures([path]).strip([0], (40, 40), (20, 20))
    assert "\n" not in str(caught.value)


def test_boxes_are_filled(tmp_path: Path) -> None:
    """As a picture of the film's own size would have them, at every size of the stored mask."""
    boxes = (Box(1, 4, 8, 20, 16), Box(1, 12, 12, 40, 24), Box(2, -10, -10, 4, 4), Box(2, 90, 60, 500, 500))
    found = true_masks(Film("a", tmp_path / "a.mp4", "video", boxes=boxes))
    assert (bool(found), found.count) == (True, 2)
    full = found.strip([0, 1, 2, 3], (72, 96), (72, 96))
    assert full is not None
    expected = np.zeros((4, 72, 96), np.uint8)
    expected[1, 8:16, 4:20] = expected[1, 12:24, 12:40] = 255
    expected[2, :4, :4] = expected[2, 60:, 90:] = 255
    assert np.array_equal(full, expected)
    half = found.strip([1, 9_999], (72, 96), (36, 48))
    assert half is not None
    assert np.array_equal(half[0], expected[1, ::2, ::2])
    assert not half[1].any(), "a frame without a box has an empty mask"
    odd = found.strip([1], (72, 96), (31, 41))
    assert odd is not None
    smooth = cv2.resize(expected[1], (41, 31), interpolation=cv2.INTER_AREA)
    assert np.abs(odd[0].astype(int) - smooth).mean() < 12


def test_pictures_go_before_boxes(tmp_path: Path) -> None:
    draw(tmp_path / "masks/0.png", np.ones((4, 4), bool))
    boxes = (Box(0, 0, 0, 1, 1),)
    assert isinstance(true_masks(Film("a", tmp_path / "a.mp4", "video", tmp_path / "masks", boxes)), Pictures)
    (tmp_path / "masks/0.png").unlink()
    assert isinstance(true_masks(Film("a", tmp_path / "a.mp4", "video", tmp_path / "masks", boxes)), Boxes)
