"""The few figures of a matrix, by hand; and the one bootstrap that they share."""

from __future__ import annotations

import numpy as np
import pytest

from fbm_dist.evaluation.disentanglement.summary import EXPECTED, SEPARATION, Draws, leak_name, statistics
from fbm_dist.evaluation.measures.scores import RESAMPLES, Right, accuracy

PARTS = {"motion": "motion", "object": "foreground"}
LEAKS = {"background": "motion"}
LEAK = leak_name("background", "motion")


def of(value: float) -> np.ndarray:
    return np.array([value])


MATRIX = {
    "motion": {"motion": of(0.9), "object": of(0.4), "background": of(0.5)},
    "foreground": {"motion": of(0.5), "object": of(0.7), "background": of(0.6)},
    "background": {"motion": of(0.6), "object": of(0.8), "background": of(0.9)},
}
GUESS = {"motion": of(0.5), "object": of(0.3), "background": of(0.25)}


def test_the_figures_by_hand() -> None:
    found = statistics(MATRIX, GUESS, PARTS, LEAKS)
    assert found[EXPECTED][0] == pytest.approx((0.9 + 0.7) / 2)
    assert found[SEPARATION][0] == pytest.approx(((0.9 - 0.6) + (0.7 - 0.8)) / 2)
    assert found[LEAK][0] == pytest.approx((0.5 - 0.25) / 0.75)


def test_what_an_encoder_has_not_is_left_out() -> None:
    lacking = {name: cells for name, cells in MATRIX.items() if name != "motion"}
    assert statistics(lacking, GUESS, PARTS, LEAKS) == {}
    alone = {"motion": MATRIX["motion"]}
    assert list(statistics(alone, GUESS, {"motion": "motion"}, {})) == [EXPECTED], "no other group to be separate from"
    assert statistics(MATRIX, GUESS, {}, {}) == {}


def test_nothing_can_leak_where_chance_is_always_right() -> None:
    found = statistics(MATRIX, {**GUESS, "background": of(1.0)}, {}, LEAKS)
    assert np.isnan(found[LEAK][0])


def right(seed: int, groups: str = "aabbbcddde") -> Right:
    return Right((np.random.default_rng(seed).random((3, len(groups))) < 0.6).astype(float), np.array(list(groups)))


def test_one_bootstrap_over_groups_and_seeds_for_everything() -> None:
    """As the other tables' intervals; the same resamples for clips that only some groups have."""
    whole, part = right(0), right(1, "bbcc")
    draws = Draws.of(np.concatenate([whole.group, part.group]), 3)
    assert draws.names.tolist() == list("abcde")
    means = draws.means(whole)
    assert means.shape == (1 + RESAMPLES,)
    found, expected = draws.interval(means), accuracy(whole)
    assert found.mean == expected.mean == whole.value.mean()
    assert found.low == pytest.approx(expected.low, abs=0.02)
    assert found.high == pytest.approx(expected.high, abs=0.02)
    assert draws.means(part)[0] == part.value.mean()
    drawn = next(i for i in range(1, 99) if draws.group[i, 1:3].min() > 0 and draws.seed[i].max() > 1)
    of_b, of_c = draws.group[drawn, 1:3].tolist()
    hits = sum(draws.seed[drawn, s] * (of_b * row[:2].sum() + of_c * row[2:].sum()) for s, row in enumerate(part.value))
    assert draws.means(part)[drawn] == pytest.approx(hits / (3 * 2 * (of_b + of_c)))
    difference = draws.interval(draws.means(whole) - draws.means(whole))
    assert (difference.mean, difference.low, difference.high) == (0, 0, 0), "paired"


def test_resamples_without_such_clips_do_not_count() -> None:
    draws = Draws.of(np.array(list("ab")), 1)
    one = draws.means(Right(np.ones((1, 1)), np.array(["a"])))
    assert np.isnan(one).any()
    found = draws.interval(one)
    assert (found.mean, found.low, found.high) == (1, 1, 1)


def test_one_group_has_no_interval() -> None:
    draws = Draws.of(np.array(["a", "a"]), 2)
    found = draws.interval(draws.means(Right(np.array([[1.0, 0.0], [1.0, 1.0]]), np.array(["a", "a"]))))
    assert (found.mean, found.low, found.high) == (0.75, None, None)
