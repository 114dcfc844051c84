"""Permutations: bijections of any size, the same one number at a time and many at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fbm_dist.data.order.permutation import Permutation, permutation, word


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


@given(st.integers(1, 10**12), st.integers(0, 2**64 - 1), st.data())
@settings(max_examples=100, deadline=None)
def test_many_at_once_go_where_each_goes_alone(size: int, key: int, data: st.DataObject) -> None:
    numbers = data.draw(st.lists(st.integers(0, size - 1), max_size=20))
    alone = [Permutation(size, key)(number) for number in numbers]
    assert Permutation(size, key).many(np.array(numbers, np.int64)).tolist() == alone


def test_the_order_of_today_is_that_of_yesterday() -> None:
    """Checkpoints rely on it: whoever changes these numbers has to change `plan.VERSION`."""
    assert [permutation(1000, "order", 0, 0, 0)(i) for i in range(6)] == [459, 957, 939, 612, 129, 275]
    assert word("substitute", 1, 2, 3) == 0x76ACB32115810359
