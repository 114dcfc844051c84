"""The part of a frame that fills the square: whole pixels inside the frame, around what the mask shows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fbm_dist.data.decoding.region import Region, region
from fbm_dist.data.order.draw import Draw
from fbm_dist.schema import ClipSpec

SIZES = st.integers(16, 400).map(lambda n: 2 * n)
NUMBERS = st.floats(0, 1, exclude_max=True)


def draw(y: float = 0.5, x: float = 0.5, scale: float = 0.5) -> Draw:
    return Draw(0.5, 1.0, 1.0, y=y, x=x, scale=scale)


def mask(*boxes: tuple[int, int, int, int], shape: tuple[int, int] = (60, 80)) -> np.ndarray:
    """One frame for each box (y0, x0, y1, x1)."""
    found = np.zeros((len(boxes), *shape), np.uint8)
    for frame, (y0, x0, y1, x1) in zip(found, boxes, strict=True):
        frame[y0:y1, x0:x1] = 200
    return found


def test_squash_takes_everything() -> None:
    assert region(ClipSpec(), 120, 160, draw()) is None


def test_crop_is_the_centre_or_anywhere() -> None:
    assert region(ClipSpec(resize="crop"), 120, 160, draw(0.9, 0.9)) == Region(0, 20, 120, 140)
    spec = ClipSpec(resize="crop", crop_share=0.5, crop_at="random")
    assert region(spec, 120, 160, draw(0, 0)) == Region(0, 0, 60, 60)
    assert region(spec, 120, 160, draw(0.999, 0.999)) == Region(60, 100, 120, 160)


def test_box_puts_the_mask_in_the_middle() -> None:
    spec = ClipSpec(resize="box", box_share=0.5, box_scale=0, box_shift=0)
    # stored frames are twice as large as the mask: the box is 20 x 32 pixels, the square twice its longer side
    assert region(spec, 120, 160, draw(), mask((20, 30, 30, 46))) == Region(18, 44, 82, 108)
    both = region(spec, 120, 160, draw(), mask((20, 30, 30, 40), (22, 34, 30, 46)))
    assert both == Region(18, 44, 82, 108)  # of several frames: around all of them


def test_jitter_scales_and_shifts_the_square() -> None:
    spec = ClipSpec(resize="box", box_share=0.5, box_scale=1, box_shift=0.25)
    shape = mask((28, 38, 32, 42))  # 8 x 8 pixels around the centre
    small, large = (region(spec, 120, 160, draw(scale=s), shape) for s in (0.0, 0.9999))
    assert small is not None
    assert large is not None
    assert (small.y1 - small.y0, large.y1 - large.y0) == (8, 30)  # 16 pixels, an octave up and down, even
    moved = region(spec, 120, 160, draw(y=0.0, x=0.9999), shape)
    assert moved == Region(48, 76, 64, 92)


def test_an_empty_mask_gives_the_centre() -> None:
    assert region(ClipSpec(resize="box"), 120, 160, draw(), mask((0, 0, 0, 0))) == Region(0, 20, 120, 140)


@given(SIZES, SIZES, NUMBERS, NUMBERS, NUMBERS, st.floats(0.02, 1), st.sampled_from(["crop", "box"]), st.data())
@settings(max_examples=200, deadline=None)
def test_every_region_is_an_even_square_inside_the_frame(
    height: int, width: int, y: float, x: float, scale: float, share: float, resize: str, data: st.DataObject
) -> None:
    around = None
    if resize == "crop":
        spec = ClipSpec(resize="crop", crop_share=share, crop_at="random")
    else:
        spec = ClipSpec(resize="box", box_share=share, box_scale=1, box_shift=0.5)
        y0, x0 = data.draw(st.integers(0, 59)), data.draw(st.integers(0, 79))
        around = mask((y0, x0, data.draw(st.integers(y0, 60)), data.draw(st.integers(x0, 80))))
    found = region(spec, height, width, draw(y, x, scale), around)
    assert found is not None
    assert found.y1 - found.y0 == found.x1 - found.x0 >= 2
    assert all(number % 2 == 0 for number in found)
    assert 0 <= found.y0 < found.y1 <= height
    assert 0 <= found.x0 < found.x1 <= width
    first, last = found.shares(height, width)
    assert (first * (height, width)).round(3).tolist() == [found.y0, found.x0]
    assert (last * (height, width)).round(3).tolist() == [found.y1, found.x1]


@pytest.mark.parametrize("share", [0.2, 0.5, 1.0])
def test_the_box_takes_its_share_of_the_square(share: float) -> None:
    spec = ClipSpec(resize="box", box_share=share, box_scale=0, box_shift=0)
    found = region(spec, 400, 400, draw(), mask((40, 40, 48, 44), shape=(100, 100)))
    assert found is not None
    assert abs(32 / (found.y1 - found.y0) - share) < 0.03
