"""Arrangements: every clip once an epoch, shards in one stretch, data sets by weight."""

from __future__ import annotations

import pickle
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fbm_dist.data.order.arrangement import CYCLE, Blocks, Mixture, Shuffled, slots_of

COUNTS = st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any)


def blocks(counts: list[int], block: int, seed: int = 0) -> Blocks:
    return Blocks(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), block, seed)


@given(COUNTS, st.integers(1, 5), st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_blocks_give_every_clip_once_an_epoch(counts: list[int], block: int, seed: int) -> None:
    clips = blocks(counts, block, seed)
    for epoch in range(3):
        start = epoch * clips.size
        assert sorted(map(clips.clip, range(start, start + clips.size))) == list(range(clips.size))


@given(COUNTS, st.integers(1, 5))
@settings(max_examples=100, deadline=None)
def test_a_shard_is_needed_in_one_stretch_beside_few_others(counts: list[int], block: int) -> None:
    clips = blocks(counts, block)
    shard = np.repeat(np.arange(len(counts)), counts)
    seen = [int(shard[clips.clip(position)]) for position in range(clips.size)]
    first = {s: seen.index(s) for s in seen}
    last = {s: len(seen) - 1 - seen[::-1].index(s) for s in seen}
    for position in range(clips.size):
        assert sum(first[s] <= position <= last[s] for s in first) <= block
    assert set(seen) == {s for s, count in enumerate(counts) if count}


def test_blocks_differ_from_epoch_to_epoch_and_mix_their_shards() -> None:
    clips = blocks([40] * 12, 4)
    shard = np.repeat(np.arange(12), 40)
    epochs = [[int(shard[clips.clip(e * 480 + p)]) for p in range(480)] for e in range(3)]
    assert len({frozenset(epoch[:160]) for epoch in epochs}) > 1  # other shards meet
    stays = np.mean([a == b for epoch in epochs for a, b in pairwise(epoch)])
    assert 0.15 < stays < 0.35  # one of four shards, as if drawn at random


def test_what_is_near_is_of_the_same_block() -> None:
    clips = blocks([5, 9, 0, 3, 8, 2], 2, seed=4)
    shard = np.repeat(np.arange(6), [5, 9, 0, 3, 8, 2])
    for position in range(clips.size):
        at_hand = {int(shard[clips.clip(p)]) for p in range(clips.size) if _block(clips, p) == _block(clips, position)}
        assert {int(shard[clips.near(position, number)]) for number in range(60)} == at_hand


def _block(clips: Blocks, position: int) -> int:
    return clips._find(0, position)[1]


def test_blocks_travel_to_reader_processes() -> None:
    clips = blocks([5, 9, 3], 2)
    before = [clips.clip(p) for p in range(40)]
    again = pickle.loads(pickle.dumps(clips))
    assert [again.clip(p) for p in range(40)] == before


def test_an_epoch_of_a_hundred_thousand_shards_is_laid_out_at_once() -> None:
    clips = Blocks(np.arange(0, 10**8 + 1, 1000), 16, 0)
    found = [clips.clip(position) for position in range(10**8 - 50, 10**8 + 50)]
    assert len(set(found[:50])) == len(set(found[50:])) == 50
    assert all(0 <= clip < 10**8 for clip in found)


@pytest.mark.parametrize(
    ("weights", "slots"),
    [([1], (1000,)), ([3, 1], (750, 250)), ([1, 1, 1], (334, 333, 333)), ([0.002, 1.998], (1, 999))],
)
def test_weights_become_slots(weights: list[float], slots: tuple[int, ...]) -> None:
    assert slots_of(weights) == slots


def test_a_weight_that_would_get_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"weight 0.0001 is less than 1/1000"):
        slots_of([1, 0.0001])


def test_every_cycle_holds_each_data_set_by_its_weight() -> None:
    mixed = Mixture((Shuffled(5000, 1, 0), Shuffled(40, 1, 1)), slots_of([7, 3]), 1)
    for cycle in range(3):
        clips = [mixed.clip(cycle * CYCLE + p) for p in range(CYCLE)]
        assert sum(clip >= 5000 for clip in clips) == 300
    runs = [len(run) for run in "".join("ab"[c >= 5000] for c in clips).split("a")]
    assert max(runs) < 12  # spread over the cycle, not in one piece


def test_each_data_set_goes_through_its_own_epochs() -> None:
    parts = (Shuffled(30, 1, 0), Shuffled(7, 1, 1))
    mixed = Mixture(parts, slots_of([1, 1]), 1)
    seen: list[list[int]] = [[], []]
    for position in range(3 * CYCLE):
        part, own = mixed.own(position)
        assert mixed.clip(position) == (0, 30)[part] + parts[part].clip(own)
        seen[part].append(own)
    assert all(sorted(own) == list(range(1500)) for own in seen)
    counts = Counter(mixed.clip(position) for position in range(3 * CYCLE))
    assert max(counts[c] for c in range(30)) - min(counts[c] for c in range(30)) <= 1
    assert {mixed.near(p, n) < 30 for p in range(50) for n in range(5) if mixed.own(p)[0] == 0} == {True}
