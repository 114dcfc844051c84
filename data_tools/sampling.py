"""Which frames of a shot a single-frame objective takes: 5-10 a shot (Pathak et al. 2017, section 5.1), chosen when they are read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

UNRANKED = -1  # of a frame that the pruning rules leave out


def shot_ranks(keeps: Sequence[Sequence[bool]]) -> list[list[int]]:
    """Rank the kept frames of one shot, so that those below any n are n frames spread evenly over the shot.

    Args:
        keeps: for each clip of the shot, in order, for each of its frames: would the pruning rules keep it.
    Returns:
        The same shape: 0, 1, 2 ... over the kept frames of the shot in bit-reversed (van der Corput) order of their places;
        `UNRANKED` for the others.
    """
    kept = [(clip, frame) for clip, keep in enumerate(keeps) for frame, good in enumerate(keep) if good]
    bits = max(len(kept) - 1, 1).bit_length()
    spread = (
        int(f"{i:0{bits}b}"[::-1], 2) * len(kept) >> bits for i in range(1 << bits)
    )  # 0, 1/2, 1/4, 3/4, 1/8 ... of them
    order = dict.fromkeys(spread if kept else ())
    ranks = [[UNRANKED] * len(keep) for keep in keeps]
    for rank, place in enumerate(order):
        clip, frame = kept[place]
        ranks[clip][frame] = rank
    return ranks


def ranks_of(clips: Iterable[tuple[Any, Sequence[bool], int]]) -> list[list[int]]:
    """`shot_ranks` of clips that follow each other.

    Args:
        clips: (whatever tells their shots apart, frames to keep: empty where no rule has judged, number of frames).
    """
    ranked: list[list[int]] = []
    for _, shot in groupby(clips, key=lambda clip: clip[0]):
        ranked += shot_ranks([list(keep) or [True] * frames for _, keep, frames in shot])
    return ranked
