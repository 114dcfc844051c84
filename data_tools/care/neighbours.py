"""Shots that lie across shards: the ranks of a shard's frames depend on the clips of the same shot in the shards beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import pyarrow as pa

from data_tools.sample import Metadata
from data_tools.sampling import ranks_of


class Clip(NamedTuple):
    """What the ranks of a clip's frames depend on."""

    film: str
    shot: int
    keep: bytes  # a byte a frame, 1: the pruning rules would keep it; empty: no rule has judged
    num_frames: int


@dataclass(frozen=True)
class Edges:
    """The clips of a shard that may share a shot with the shards beside it.

    Attributes:
        first: those of its first shot.
        last: those of its last shot; the same where it holds one shot alone.
        whole: does it hold one shot alone.
    """

    first: tuple[Clip, ...] = ()
    last: tuple[Clip, ...] = ()
    whole: bool = True


def clip_of(metadata: Metadata) -> Clip:
    """What the `json` member says."""
    return Clip(metadata.film, metadata.shot, bytes(metadata.keep), metadata.num_frames)


def clips_of(table: pa.Table) -> list[Clip]:
    """What a shard's manifest says."""
    columns = (table[name].to_pylist() for name in ("film", "shot", "keep", "num_frames"))
    return [Clip(film, shot, bytes(keep or ()), frames) for film, shot, keep, frames in zip(*columns, strict=True)]


def edges_of(clips: Sequence[Clip]) -> Edges:
    """The edges of a shard that holds `clips`, none or more."""
    shots = [tuple(shot) for _, shot in groupby(clips, key=_shot)]
    return Edges(shots[0], shots[-1], len(shots) == 1) if shots else Edges()


def ranks_within(shards: Sequence[Edges], number: int, clips: Sequence[Clip]) -> list[list[int]]:
    """The ranks of the frames of `clips`, which are those of shard `number` (or of its first and its last shot).

    Args:
        shards: the edges of all shards, in reading order.
    """
    before = _alike(shards, range(number - 1, -1, -1), clips[0], forward=False) if clips else []
    after = _alike(shards, range(number + 1, len(shards)), clips[-1], forward=True) if clips else []
    together = [*before, *clips, *after]
    ranks = ranks_of((_shot(clip), [bool(k) for k in clip.keep], clip.num_frames) for clip in together)
    return ranks[len(before) : len(before) + len(clips)]


def _alike(shards: Sequence[Edges], others: range, clip: Clip, forward: bool) -> list[Clip]:
    """Clips of the same shot in the shards that follow (or come before), in reading order."""
    found: list[Clip] = []
    for other in others:
        edge = shards[other].first if forward else shards[other].last
        if not edge:
            continue  # nothing is left of that shard
        if _shot(edge[0]) != _shot(clip):
            break
        found = [*found, *edge] if forward else [*edge, *found]
        if not shards[other].whole:
            break
    return found


def _shot(clip: Clip) -> tuple[str, int]:
    return clip.film, clip.shot
