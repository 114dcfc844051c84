"""The order: a bijection per epoch, the same for any number of ranks and from any place, at any size."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fbm_dist.data.order.plan import Draw, Order, Pass, Permutation, moment
from fbm_dist.schema import ClipSpec


def stream(order: Order, steps: int) -> list[list[int]]:
    """Clips of every step of an order's rank, micro-batch after micro-batch."""
    per_step = order.global_batch // (order.micro_batch * order.world_size)
    return [
        [order.place(step * per_step + m, slot).clip for m in range(per_step) for slot in range(order.micro_batch)]
        for step in range(steps)
    ]


def global_steps(num_clips: int, world_size: int, steps: int, consumed: int = 0, micro: int = 1) -> list[list[int]]:
    """Clips of every step over all ranks, in the order of their positions."""
    orders = [Order(num_clips, 5, 24, micro, r, world_size, consumed) for r in range(world_size)]
    ranks = [stream(order, steps) for order in orders]
    return [[ranks[r][s][i] for i in range(24 // world_size) for r in range(world_size)] for s in range(steps)]


@pytest.mark.parametrize("size", range(1, 70))
def test_permutation_is_a_bijection(size: int) -> None:
    for key in range(5):
        assert sorted(map(Permutation(size, key * 7919), range(size))) == list(range(size))


@given(st.integers(2, 10**12), st.integers(0, 2**64 - 1), st.data())
@settings(max_examples=100, deadline=None)
def test_permutation_of_any_size_sends_different_numbers_to_different_places(
    size: int, key: int, data: st.DataObject
) -> None:
    numbers = data.draw(st.lists(st.integers(0, size - 1), unique=True, min_size=2, max_size=20))
    places = [Permutation(size, key)(number) for number in numbers]
    assert len(set(places)) == len(numbers)
    assert all(0 <= place < size for place in places)


def test_every_clip_comes_to_every_place_about_equally_often() -> None:
    counts = np.zeros((6, 6))
    order = Order(6, 1, 1, 1)
    for position in range(6 * 1200):
        counts[position % 6, order.clip(position)] += 1
    assert np.abs(counts - 200).max() < 70  # five standard deviations


@pytest.mark.parametrize("world_size", [2, 3, 8])
@pytest.mark.parametrize("num_clips", [1, 7, 24, 50])
def test_the_global_order_does_not_depend_on_the_number_of_ranks(num_clips: int, world_size: int) -> None:
    for micro in (1, 24 // world_size):
        assert global_steps(num_clips, world_size, 10, micro=micro) == global_steps(num_clips, 1, 10)


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_resuming_after_any_step_goes_on_with_the_same_clips(world_size: int) -> None:
    whole = global_steps(50, 1, 12)
    for step in range(12):
        assert global_steps(50, world_size, 12 - step, consumed=step * 24) == whole[step:]


def test_each_clip_comes_once_an_epoch_and_epochs_differ() -> None:
    order = Order(50, 3, 7, 7)
    epochs = [[order.clip(epoch * 50 + i) for i in range(50)] for epoch in range(4)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert [Order(50, 4, 7, 7).clip(i) for i in range(50)] != epochs[0]


def test_a_far_position_costs_no_more_than_the_first() -> None:
    order = Order(10**8, 0, 64, 8, consumed=64 * 10**6)
    assert order.place(0, 0).clip == Order(10**8, 0, 64, 8).place(8 * 10**6, 0).clip


def test_random_numbers_depend_on_seed_epoch_and_position_alone() -> None:
    numbers = [Draw.at(seed, epoch, position) for seed in (0, 1) for epoch in (0, 1) for position in range(50)]
    assert len({draw.window for draw in numbers}) == 200
    assert abs(np.mean([draw.reverse for draw in numbers]) - 0.5) < 0.1
    one = Order(50, 0, 8, 4, rank=1, world_size=2).draw(77)
    assert one == Order(50, 0, 24, 24).draw(77) == Draw.at(0, 1, 27)


def test_moment_stays_within_the_stored_clip_and_reaches_both_ends() -> None:
    spec = ClipSpec(frames=4, stride=3, reverse=0.5, mirror=0.25)
    taken = [moment(spec, 14, Draw.at(0, 0, position)) for position in range(400)]
    starts = Counter(m.frames[0] for m in taken)
    assert sorted(starts) == [0, 1, 2, 3, 4]
    assert min(starts.values()) > 50
    assert all(np.diff(m.frames).tolist() == [3, 3, 3] for m in taken)
    assert 0.4 < np.mean([m.reverse for m in taken]) < 0.6
    assert 0.17 < np.mean([m.mirror for m in taken]) < 0.33
    centre = moment(spec.model_copy(update={"window": "centre"}), 14, Draw(0.9, 0.0, 0.9))
    assert (centre.frames, centre.shown) == ((2, 5, 8, 11), (11, 8, 5, 2))


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_a_pass_covers_each_clip_once(world_size: int) -> None:
    seen = []
    for rank in range(world_size):
        order = Pass(11, 4, rank, world_size)
        places = [order.place(b, slot) for b in range(order.num_batches) for slot in range(4)]
        assert all(0 <= place.clip < 11 for place in places)
        seen += [place.clip for place in places if not place.padding]
    assert sorted(seen) == list(range(11))


def test_a_pass_gives_nothing_to_ranks_beyond_the_clips() -> None:
    assert [Pass(2, 4, rank, 3).num_batches for rank in range(3)] == [1, 1, 0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"global_batch": 10, "micro_batch": 4}, "training.global_batch=10 is not a multiple .* set it to 12"),
        ({"global_batch": 8, "micro_batch": 4, "world_size": 3}, "x 3 processes = 12; set it to 12"),
        ({"global_batch": 8, "micro_batch": 4, "consumed": 4}, "not a whole number of global batches"),
        ({"global_batch": 8, "micro_batch": 0}, "must be positive"),
        ({"global_batch": 8, "micro_batch": 4, "rank": 2, "world_size": 2}, "smaller than the number of processes"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(arguments: dict[str, int], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Order(num_clips=20, seed=0, **arguments)
