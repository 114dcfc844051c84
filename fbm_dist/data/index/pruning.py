"""Clips judged again when they are read: pruning rules of a config on the statistics of masks that the manifests store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int

from data_tools.prune import Pruning, clip_verdict, frame_verdicts
from data_tools.sample import MaskStatistics
from fbm_dist.data.index.arrays import ArrayFile
from fbm_dist.data.index.columns import one
from fbm_dist.data.index.index import Index
from fbm_dist.data.index.manifest import shard_tables

VERDICT = "verdict.npy"
KNOWN = 100_000  # kinds of clips that are remembered

DECIMALS = 6  # statistics are rounded to them; the manifest's float32 is not, and 0.1 would be above 0.1


def write_verdicts(index: Index, rules: Pruning, folder: Path) -> dict[str, Any]:
    """Why these rules would leave out each clip of a snapshot: the first reason of its verdict.

    Writes verdict.npy, int8: a number per clip, -1 where it is kept, as it is without a mask.

    Returns:
        `names`: of the numbers.
    Raises:
        ValueError: a manifest cannot be read, or no clip has statistics.
    """
    judge = _Judge(rules)
    judged = 0
    with ArrayFile(folder / VERDICT, np.int8) as file:
        for path, statistics in shard_tables(index, ("statistics",), lambda table: one(table["statistics"])):
            found = np.full(len(statistics), -1, np.int8)
            has = np.flatnonzero(statistics.is_valid().to_numpy(zero_copy_only=False))
            try:
                found[has] = judge(statistics.drop_null())
            except (ValueError, pa.ArrowException) as error:
                raise ValueError(f"{path}: no statistics of masks: {error}") from None
            file.append(found)
            judged += len(has)
    if not judged:
        raise ValueError(
            f"{index.root}: no clip has statistics of a mask, which data.filter.rules judges; prepare the data set with masks, or leave "
            "data.filter.rules out"
        )
    return {"names": judge.names}


class _Judge:
    """Verdicts of many clips by few calls of the rules.

    A rule compares a share with numbers of its own, so shares that lie alike between all of the rules' numbers are the same to it; and a
    clip's verdict counts how its frames fare, in whatever order. Clips that are alike in this are of one kind, and share a verdict.
    """

    def __init__(self, rules: Pruning) -> None:
        self.names: list[str] = []  # of first reasons, as they are met
        self._rules = rules
        self._bounds = np.unique([float(number) for number in rules.model_dump().values()])
        self._known: dict[bytes, int] = {}  # kind of clip -> index into names, -1: kept
        between = (self._bounds[1:] + self._bounds[:-1]) / 2
        shares = np.sort(np.concatenate([self._bounds, between, [self._bounds[0] - 1, self._bounds[-1] + 1]]))
        says = frame_verdicts(_statistics(np.repeat(shares, len(shares)), np.tile(shares, len(shares))), rules)
        self._kinds = len(set(says))  # of frames
        self._kind = np.array([sorted(set(says)).index(verdict) for verdict in says]).reshape(len(shares), -1)

    def __call__(self, statistics: pa.StructArray) -> Int[np.ndarray, " n"]:
        """Index into `names` of each clip, -1 where it is kept."""
        lengths = pc.list_value_length(pc.struct_field(statistics, "foreground")).to_numpy()
        if not np.array_equal(lengths, pc.list_value_length(pc.struct_field(statistics, "border")).to_numpy()):
            raise ValueError("foreground and border are of different lengths")
        foreground, border = (
            _numbers(pc.struct_field(statistics, name).flatten()) for name in ("foreground", "border")
        )
        flatness, consistency = (_numbers(pc.struct_field(statistics, name)) for name in ("flatness", "consistency"))
        kind = self._kind[self._level(foreground), self._level(border)]
        clip = np.repeat(np.arange(len(lengths)), lengths)
        counts = np.bincount(clip * self._kinds + kind, minlength=len(lengths) * self._kinds).reshape(-1, self._kinds)
        alike = np.column_stack([counts, self._level(flatness), self._level(consistency)]).astype(np.int32)
        kinds, example, kind_of = np.unique(alike, axis=0, return_index=True, return_inverse=True)
        start = np.cumsum(lengths) - lengths
        found = np.empty(len(kinds), np.int64)
        for number, (key, i) in enumerate(zip((row.tobytes() for row in kinds), example.tolist(), strict=True)):
            if key not in self._known:
                if len(self._known) >= KNOWN:
                    self._known.clear()
                frames = slice(start[i], start[i] + lengths[i])
                self._known[key] = self._ask(foreground[frames], border[frames], flatness[i], consistency[i])
            found[number] = self._known[key]
        return found[kind_of.reshape(-1)]

    def _level(self, shares: np.ndarray) -> np.ndarray:
        """Where among the rules' numbers: even between two of them, odd on one."""
        return np.searchsorted(self._bounds, shares, "left") + np.searchsorted(self._bounds, shares, "right")

    def _ask(self, foreground: np.ndarray, border: np.ndarray, flatness: float, consistency: float) -> int:
        verdict = clip_verdict(_statistics(foreground, border, float(flatness), float(consistency)), self._rules)
        if not verdict:
            return -1
        if verdict[0] not in self.names:
            self.names.append(verdict[0])
        return self.names.index(verdict[0])


def _statistics(
    foreground: np.ndarray, border: np.ndarray, flatness: float = 0.0, consistency: float = 0.0
) -> MaskStatistics:
    """What the rules look at, not checked again: it was when it was written."""
    return MaskStatistics.model_construct(
        foreground=tuple(foreground.tolist()),
        border=tuple(border.tolist()),
        uncertain=(),
        flatness=flatness,
        consistency=consistency,
    )


def _numbers(values: pa.Array) -> np.ndarray:
    return np.round(values.to_numpy(zero_copy_only=False).astype(np.float64), DECIMALS)
