"""Frames of a shot for the single-frame objective: any number of them is spread over the shot, and only kept ones count."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from data_tools.sampling import UNRANKED, ranks_of, shot_ranks


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=64), min_size=1, max_size=5))
def test_kept_frames_are_ranked_once_and_others_never(keeps: list[list[bool]]) -> None:
    ranks = shot_ranks(keeps)
    flat = [(good, rank) for keep, own in zip(keeps, ranks, strict=True) for good, rank in zip(keep, own, strict=True)]
    assert sorted(rank for good, rank in flat if good) == list(range(sum(good for good, _ in flat)))
    assert all(rank == UNRANKED for good, rank in flat if not good)


@given(st.integers(10, 500), st.integers(4, 10))
def test_the_first_n_are_spread_over_the_shot(frames: int, n: int) -> None:
    (ranks,) = shot_ranks([[True] * frames])
    chosen = sorted(i for i, rank in enumerate(ranks) if rank < n)
    assert len(chosen) == n
    steps = [b - a for a, b in zip(chosen, [*chosen[1:], frames], strict=True)]
    assert max(steps) <= frames / 2 + 1, "no half of the shot is left out"
    assert min(steps) >= frames // 32, "no two of them are neighbours in a long shot"


def test_shots_are_ranked_by_themselves_and_what_nobody_judged_is_kept() -> None:
    assert ranks_of([("a", (), 2), ("a", (True, False), 2), ("b", (), 1)]) == [[0, 1], [2, UNRANKED], [0]]
