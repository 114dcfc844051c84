"""Stretches of a pass: each clip once, no batch across two stretches, and readers may run ahead of the end."""

from __future__ import annotations

import pytest

from fbm_dist.data.order.plan import Pass
from fbm_dist.data.order.stretches import Stretches


def read(order: Pass) -> list[list[int]]:
    """The positions of each batch, without the padding."""
    places = ([order.place(batch, slot) for slot in range(order.batch)] for batch in range(order.num_batches))
    return [[place.position for place in batch if not place.padding] for batch in places]


def test_batches_end_with_their_stretch() -> None:
    order = Stretches(20, 3, stretches=((2, 6), (6, 7), (12, 20)))
    assert read(order) == [[2, 3, 4], [5], [6], [12, 13, 14], [15, 16, 17], [18, 19]]
    assert order.size == 13
    assert list(order.positions(6)) == [6, *range(12, 20)]
    for number in range(order.num_batches + 3):  # readers run ahead
        for slot in range(order.batch):
            place = order.place(number, slot)
            assert 0 <= place.clip < order.num_clips
            assert place.padding or place.clip == place.position


def test_all_stretches_are_the_whole_pass() -> None:
    whole = Stretches(11, 4, stretches=((0, 11),))
    assert read(whole) == read(Pass(11, 4))
    assert [whole.draw(p) for p in range(11)] == [Pass(11, 4).draw(p) for p in range(11)]


@pytest.mark.parametrize("stretches", [((3, 3),), ((4, 6), (5, 8)), ((8, 11),), ((5, 6), (2, 3))])
def test_stretches_that_cannot_be(stretches: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(ValueError, match="ascending"):
        Stretches(10, 2, stretches=stretches)
