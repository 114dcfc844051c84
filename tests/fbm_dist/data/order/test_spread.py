"""The fixed sample: each clip once, the same batches for any number of ranks, none of a single clip, no neighbours of one film."""

from __future__ import annotations

import pytest

from fbm_dist.data.order.spread import Spread


def batches(num_clips: int, batch: int, world: int, limit: int | None = None) -> list[list[int]]:
    """The clips of every batch of all ranks, in the order of the batches; padding left out."""
    found = {}
    for rank in range(world):
        order = Spread(num_clips, batch, rank, world, limit)
        for number in range(order.num_batches):
            places = [order.place(number, slot) for slot in range(batch)]
            found[number * world + rank] = [place.clip for place in places if not place.padding]
    return [found[number] for number in sorted(found)]


@pytest.mark.parametrize("num_clips", [1, 4, 21, 40])
def test_batches_do_not_depend_on_the_number_of_ranks(num_clips: int) -> None:
    one = batches(num_clips, 4, 1)
    assert sorted(clip for part in one for clip in part) == list(range(num_clips))
    assert all(batches(num_clips, 4, world) == one for world in (2, 3, 7))


def test_no_batch_has_a_single_clip() -> None:
    for num_clips in range(2, 60):
        assert min(len(part) for part in batches(num_clips, 4, 2)) >= 2


def test_a_limit_takes_the_first_of_the_same_shuffle() -> None:
    whole = [clip for part in batches(1000, 10, 1) for clip in part]
    some = [clip for part in batches(1000, 10, 3, limit=50) for clip in part]
    assert some == whole[:50]
    assert max(some) > 900, "not the data set's first clips"


def test_readers_may_run_ahead_of_the_end() -> None:
    order = Spread(5, 4, 2, 3)
    assert order.num_batches == 0
    assert all(order.place(number, slot).padding for number in range(3) for slot in range(4))
