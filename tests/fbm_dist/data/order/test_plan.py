"""The order: a bijection per epoch, the same for any number of ranks and from any place, at any size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fbm_dist.data.order.arrangement import Arrangement, Blocks, Mixture, Shuffled, slots_of
from fbm_dist.data.order.plan import Order, Pass


def stream(order: Order, steps: int) -> list[list[int]]:
    """Clips of every step of an order's rank, micro-batch after micro-batch."""
    per_step = order.global_batch // (order.micro_batch * order.world_size)
    return [
        [order.place(step * per_step + m, slot).clip for m in range(per_step) for slot in range(order.micro_batch)]
        for step in range(steps)
    ]


def global_steps(clips: Arrangement, world_size: int, steps: int, consumed: int = 0, micro: int = 1) -> list[list[int]]:
    """Clips of every step of 24 over all ranks, in the order of their positions."""
    orders = [Order(clips, 5, 24, micro, r, world_size, consumed) for r in range(world_size)]
    ranks = [stream(order, steps) for order in orders]
    return [[ranks[r][s][i] for i in range(24 // world_size) for r in range(world_size)] for s in range(steps)]


def test_every_clip_comes_to_every_place_about_equally_often() -> None:
    counts = np.zeros((6, 6))
    order = Order(Shuffled(6, 1), 1, 1, 1)
    for position in range(6 * 1200):
        counts[position % 6, order.clip(position)] += 1
    assert np.abs(counts - 200).max() < 70  # five standard deviations


ARRANGEMENTS: dict[str, Arrangement] = {
    "one clip": Shuffled(1, 5),
    "as many as a step": Shuffled(24, 5),
    "no multiple of a step": Shuffled(50, 5),
    "blocks": Blocks(np.array([0, 7, 7, 20, 23, 41, 50]), 2, 5),
    "mixture": Mixture((Shuffled(50, 5), Blocks(np.array([0, 4, 9, 11]), 2, 5, 1)), slots_of([3, 1]), 5),
}


@pytest.mark.parametrize("world_size", [2, 3, 8])
@pytest.mark.parametrize("kind", ARRANGEMENTS)
def test_the_global_order_does_not_depend_on_the_number_of_ranks(kind: str, world_size: int) -> None:
    clips = ARRANGEMENTS[kind]
    for micro in (1, 24 // world_size):
        assert global_steps(clips, world_size, 10, micro=micro) == global_steps(clips, 1, 10)


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
@pytest.mark.parametrize("kind", ARRANGEMENTS)
def test_resuming_after_any_step_goes_on_with_the_same_clips(kind: str, world_size: int) -> None:
    whole = global_steps(ARRANGEMENTS[kind], 1, 12)
    for step in range(12):
        assert global_steps(ARRANGEMENTS[kind], world_size, 12 - step, consumed=step * 24) == whole[step:]


@given(st.integers(1, 10**8), st.integers(0, 10**6), st.sampled_from([1, 2, 3, 8, 24]), st.integers(0, 2**63))
@settings(max_examples=60, deadline=None)
def test_at_any_size_and_place_ranks_share_what_one_alone_would_read(
    size: int, step: int, world_size: int, seed: int
) -> None:
    for clips in (Shuffled(size, seed), Mixture((Shuffled(size, seed), Shuffled(7, seed, 1)), (990, 10), seed)):
        alone = [Order(clips, seed, 24, 24, consumed=step * 24).place(0, slot) for slot in range(24)]
        orders = [Order(clips, seed, 24, 1, r, world_size, step * 24) for r in range(world_size)]
        shared = [orders[i % world_size].place(i // world_size, 0) for i in range(24)]
        assert shared == alone
        assert all(0 <= place.clip < clips.size for place in alone)
        assert [orders[0].draw(place.position) for place in alone] == [
            orders[-1].draw(place.position) for place in shared
        ]


def test_each_clip_comes_once_an_epoch_and_epochs_differ() -> None:
    order = Order(Shuffled(50, 3), 3, 7, 7)
    epochs = [[order.clip(epoch * 50 + i) for i in range(50)] for epoch in range(4)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert [Order(Shuffled(50, 4), 4, 7, 7).clip(i) for i in range(50)] != epochs[0]


def test_the_last_batch_of_an_epoch_is_filled_up_with_the_next_one() -> None:
    steps = [
        clip for step in global_steps(Shuffled(50, 5), 3, 25) for clip in step
    ]  # 12 epochs, no step of which ends with one
    assert all(sorted(steps[epoch * 50 : epoch * 50 + 50]) == list(range(50)) for epoch in range(12))


def test_substitutes_are_functions_of_position_and_attempt() -> None:
    order = Order(Shuffled(50, 3), 3, 6, 6)
    found = [[order.substitute(position, attempt) for attempt in range(1, 5)] for position in range(200)]
    again = [[Order(Shuffled(50, 3), 3, 6, 2, 1, 3).substitute(p, a) for a in range(1, 5)] for p in range(200)]
    assert found == again
    assert np.bincount(np.array(found).ravel(), minlength=50).min() > 3  # any clip


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
        Order(Shuffled(20, 0), seed=0, **arguments)
