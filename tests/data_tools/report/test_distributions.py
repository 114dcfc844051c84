"""Quantiles and histograms of a stream are those of the numbers themselves, to within the step."""

from __future__ import annotations

import numpy as np
import pytest

from data_tools.report.distributions import Distribution, Tally


def test_quantiles_are_those_of_the_numbers() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.gamma(2, 0.05, size) for size in (1, 1000, 17)]
    spread = Distribution(0.001)
    for part in parts:
        spread.add(part)
    numbers = np.concatenate(parts)
    assert spread.total == len(numbers)
    assert spread.mean == pytest.approx(numbers.mean())
    for share in (0.0, 0.05, 0.5, 0.95, 1.0):
        assert spread.quantile(share) == pytest.approx(np.quantile(numbers, share, method="inverted_cdf"), abs=0.0006)


def test_whole_numbers_are_exact() -> None:
    spread = Distribution()
    spread.add(np.array([1, 1, 2, 64], np.int32))
    assert [spread.quantile(share) for share in (0, 0.5, 0.75, 1)] == [1, 1, 2, 64]
    summary = spread.summary()
    assert summary is not None
    assert (summary["count"], summary["mean"], summary["max"]) == (4, 17, 64)


def test_bins_take_what_lies_on_their_edges_from_below() -> None:
    spread = Distribution(0.1)
    spread.add(np.array([0.0, 0.1, 0.3, 0.3, 0.7]))
    assert spread.binned(np.arange(0, 1.0, 0.3)).tolist() == [2, 2, 1]  # 3 * 0.1 > 0.3 in floating point


def test_what_is_no_number_is_passed_over() -> None:
    spread = Distribution(0.1)
    spread.add(np.array([np.nan, np.inf, 0.5]))
    assert spread.total == 1
    assert Distribution().summary() is None
    with pytest.raises(ValueError, match="no numbers"):
        Distribution().quantile(0.5)


def test_a_tally_does_not_grow_without_bound() -> None:
    tally = Tally(most=2)
    for values in ({"a": 1, "b": 5}, {"c": 7, "a": 1}):
        tally.add(values)
    assert tally.top() == {"b": 5, "a": 2}
    assert (tally.others, tally.total) == (7, 14)


def test_equal_counts_are_sorted_by_name() -> None:
    tally = Tally()
    tally.add({"b": 1, "a": 1, "c": 2})
    assert list(tally.top(2)) == ["c", "a"]
