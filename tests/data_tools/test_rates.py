"""Timestamps become a constant rate: nothing moves, nothing is lost at a true constant rate, and absurd steps are bridged."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tools.rates import DEFAULT_RATE, MAX_RATE, BestTimes, Clock, Rate, constant_rate


def slots(times: list[float | None], rate: Fraction) -> list[int]:
    """Which frame stands in each slot."""
    clock, filled, before = Clock(rate), [], -1
    for number, time in enumerate(times):
        filled += [before] * clock.advance(time)[0]
        before = number
    return [*filled, before]


@given(
    st.sampled_from([Fraction(25), Fraction(30000, 1001), Fraction(24000, 1001), Fraction(60)]),
    st.integers(1, 400),
    st.floats(-1e6, 1e6),
    st.lists(st.floats(-0.3, 0.3), min_size=400, max_size=400),
)
def test_a_constant_rate_with_jitter_keeps_every_frame_once(
    rate: Fraction, count: int, start: float, jitter: list[float]
) -> None:
    times = [start + (i + (jitter[i] - jitter[0]) / 2) / float(rate) for i in range(count)]
    assert slots(times, rate) == list(range(count))


def test_a_variable_rate_repeats_and_leaves_out() -> None:
    assert slots([0.0, 0.1, 0.4, 0.5], Fraction(10)) == [0, 1, 1, 1, 2, 3]
    assert slots([0.0, 0.02, 0.04, 0.1], Fraction(10)) == [2, 3]


def test_frames_without_times_follow_each_other() -> None:
    assert slots([None, None, None], Fraction(25)) == [0, 1, 2]
    assert slots([0.0, None, 0.08], Fraction(25)) == [0, 1, 2]


@pytest.mark.parametrize("jump", [1e14, -1e14, 5.0, -5.0])
def test_an_absurd_step_is_bridged(jump: float) -> None:
    clock = Clock(Fraction(25))
    steps = [clock.advance(t) for t in (0.0, 0.04, jump, jump + 0.04)]
    assert [filled for filled, _ in steps] == [0, 1, 1, 1]
    assert [bridged for _, bridged in steps] == [False, False, True, False]
    assert clock.gaps == 1


def test_the_stated_rate_is_trusted_where_the_times_agree() -> None:
    times = [round(i / 29.97, 3) for i in range(100)]  # milliseconds, as Matroska has them
    assert constant_rate(times, Fraction(30000, 1001)) == Rate(Fraction(30000, 1001))


def test_the_times_win_over_a_wrong_header() -> None:
    assert constant_rate([i / 25 for i in range(50)], Fraction(90000)) == Rate(Fraction(25))


def test_a_lost_frame_lowers_no_rate() -> None:
    times = [i / 25 for i in range(100) if i not in (10, 11, 50, 70, 71, 72, 90)]
    assert constant_rate(times, None) == Rate(Fraction(25), variable=False, steady=False)


def test_a_variable_rate_is_seen_and_averaged() -> None:
    rate, variable, steady = constant_rate([0, 0.1, 0.4, 0.5, 1.0, 1.05], None)
    assert variable
    assert not steady
    assert float(rate) == pytest.approx(5 / 1.05, rel=1e-3)


@pytest.mark.parametrize("times", [[], [3.0], [1.0, 1.0]])
def test_without_steps_the_header_or_a_default_decides(times: list[float]) -> None:
    assert constant_rate(times, Fraction(50)) == Rate(Fraction(50))
    assert constant_rate(times, Fraction(90000)) == Rate(DEFAULT_RATE)
    assert constant_rate(times, None) == Rate(DEFAULT_RATE)


def test_a_rate_is_never_absurd() -> None:
    assert constant_rate([i * 1e-6 for i in range(10)], None).fps == MAX_RATE


@pytest.mark.parametrize("late", [0.08, 3.0, 1e9])
def test_a_film_with_a_gap_is_not_steady(late: float) -> None:
    times = [i / 25 for i in range(50)] + [2 + late + i / 25 for i in range(50)]
    assert constant_rate(times, None) == Rate(Fraction(25), variable=False, steady=False)


def test_presentation_times_in_decoding_order_are_not_believed() -> None:
    """As an AVI with B-frames gives them: pts jump to and fro, dts count up."""
    best = BestTimes()
    pts = [1, 4, 3, 5, 7, 6, 9, 8, 11, 10]
    assert [best.choose(p, i) for i, p in enumerate(pts)][3:] == list(range(3, 10))


def test_good_presentation_times_are_believed() -> None:
    best = BestTimes()
    assert [best.choose(10 * i, i) for i in range(9)] == [10 * i for i in range(9)]
    assert best.choose(None, 7) == 7
    assert best.choose(500, None) == 500
    assert best.choose(None, None) is None
