"""Ranks of a shard are those of the whole shot, however many shards it lies across."""

from __future__ import annotations

from itertools import pairwise

import pytest

from data_tools.care.neighbours import Clip, edges_of, ranks_within
from data_tools.care.rewriting import successor
from data_tools.dataset import Dataset, Snapshot
from data_tools.sampling import ranks_of


def clips() -> list[Clip]:
    """Film x: shots of 1, 5 and 2 clips; film y begins with the same number of shot."""
    shots = [("x", 0), *[("x", 1)] * 5, *[("x", 2)] * 2, ("y", 2)]
    return [Clip(film, shot, bytes((i + j) % 3 > 0 for j in range(4)), 4) for i, (film, shot) in enumerate(shots)]


@pytest.mark.parametrize("cuts", [(9,), (1, 9), (2, 9), (2, 3, 9), (2, 3, 4, 5, 9), (3, 3, 7, 9), (0, 4, 4, 4, 8, 9)])
def test_however_shards_are_cut_ranks_are_the_same(cuts: tuple[int, ...]) -> None:
    """Also where a shard holds nothing any more, and where one holds nothing but a part of a shot."""
    every = clips()
    wanted = ranks_of(((c.film, c.shot), [bool(k) for k in c.keep], c.num_frames) for c in every)
    shards = [every[start:stop] for start, stop in pairwise((0, *cuts))]
    edges = [edges_of(shard) for shard in shards]
    got = [ranks for number, shard in enumerate(shards) for ranks in ranks_within(edges, number, shard)]
    assert got == wanted


def test_names_of_rewritten_shards() -> None:
    def snapshot(*shards: str) -> Snapshot:
        return Snapshot(id="1", digest="", shards=shards, clips=1, frames=1, bytes=1)

    dataset = Dataset(
        settings={}, snapshots=(snapshot("000003", "000004"), snapshot("000003-1", "clips-000", "000004-2"))
    )
    assert successor(dataset, "000004") == "000004-1"
    assert successor(dataset, "000003") == "000003-2", "the first is taken"
    assert successor(dataset, "000003-1") == "000003-2"
    assert successor(dataset, "000004-1") == "000004-3"
    assert successor(dataset, "clips-000") == "clips-000-1", "that is no number of ours"
