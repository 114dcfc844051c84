"""Masks as squares: the part that the frame's region is of them, soft ones blended, hard ones kept; damage is told."""

from __future__ import annotations

import numpy as np
import pytest

from data_tools.sample import strip_to_png
from fbm_dist.data.decoding.frames import UndecodableError
from fbm_dist.data.decoding.masks import squares, strip_of
from fbm_dist.data.decoding.region import Region

Y, X = np.mgrid[:40, :60]
RAMP = np.stack([2 * Y + 3 * X, 250 - 2 * Y - 3 * X]).astype(np.uint8)  # linear: any blend of neighbours is known


def resized(masks: np.ndarray, side: int, part: Region | None, frame: tuple[int, int], soft: bool = True) -> np.ndarray:
    into = np.zeros((len(masks), side, side), np.uint8)
    squares(masks, list(into), part, frame, soft=soft)
    return into


@pytest.mark.parametrize(
    ("part", "frame"),
    [
        (None, (120, 180)),
        (Region(0, 30, 120, 150), (120, 180)),  # whole pixels of the mask
        (Region(16, 20, 80, 84), (120, 180)),  # fractions of them
        (Region(4, 6, 36, 38), (40, 60)),  # as large as the frame
        (Region(8, 8, 104, 104), (120, 180)),
    ],
)
@pytest.mark.parametrize("side", [16, 33, 64])
def test_scores_are_those_of_the_region(part: Region | None, frame: tuple[int, int], side: int) -> None:
    y0, x0, y1, x1 = part or Region(0, 0, *frame)
    scale = 40 / frame[0]
    centres = (np.arange(side) + 0.5) / side
    y = (y0 + centres * (y1 - y0)) * scale - 0.5
    x = (x0 + centres * (x1 - x0)) * scale - 0.5
    wanted = 2 * y[:, None] + 3 * x[None]
    found = resized(RAMP, side, part, frame).astype(float)
    inner = slice(2, -2)  # at the edge a filter has fewer neighbours
    assert np.abs(found[0] - wanted)[inner, inner].max() < 1.6
    assert np.abs(found[1] - (250 - wanted))[inner, inner].max() < 1.6


@pytest.mark.parametrize("part", [None, Region(16, 20, 80, 84)])
def test_hard_masks_stay_hard(part: Region | None) -> None:
    hard = ((Y // 7 + X // 5) % 2 * 255).astype(np.uint8)[None]
    assert set(np.unique(resized(hard, 64, part, (120, 180), soft=False))) == {0, 255}
    assert len(np.unique(resized(hard, 64, part, (120, 180)))) > 2


def test_damage_is_an_error_with_a_reason() -> None:
    data = strip_to_png(RAMP)
    assert np.array_equal(strip_of(data, 2, 40, 60), RAMP)
    broken = bytearray(data)
    broken[len(data) // 2] ^= 0x55
    for bad in (b"", bytes(len(data)), data[: len(data) // 2], bytes(broken)):
        with pytest.raises(UndecodableError, match="mask: "):
            strip_of(bad, 2, 40, 60)
    with pytest.raises(UndecodableError, match="the index says"):
        strip_of(data, 2, 40, 50)
    with pytest.raises(UndecodableError, match="does not hold 3 frames"):
        strip_of(data, 3, 40, 60)
