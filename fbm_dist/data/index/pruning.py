"""Clips judged again when they are read: pruning rules of a config on the statistics of masks that the manifests store."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int, Int8

from data_tools.prune import Pruning, clip_verdict, frame_verdicts
from data_tools.sample import MaskStatistics
from fbm_dist.data.index.index import Index
from fbm_dist.data.index.manifest import shard_tables

DECIMALS = 6  # statistics are rounded to them; the manifest's float32 is not, and 0.1 would be above 0.1


def verdicts(index: Index, rules: Pruning) -> tuple[Int8[np.ndarray, " n"], tuple[str, ...]]:
    """Why these rules would leave out each clip of a snapshot: the first reason of its verdict.

    Returns:
        An index into the names per clip, -1 where it is kept, as it is without a mask; and the names, sorted.
    Raises:
        ValueError: a manifest cannot be read, or no clip has statistics.
    """
    judge = _Judge(rules)
    reasons = np.full(len(index.rows), -1, np.int8)
    judged = 0
    for path, start, table in shard_tables(index, ["statistics"]):
        has = np.flatnonzero(table["statistics"].is_valid().to_numpy())
        try:
            reasons[start + has] = judge(pa.concat_arrays(table["statistics"].chunks).drop_null())
        except (ValueError, pa.ArrowException) as error:
            raise ValueError(f"{path}: no statistics of masks: {error}") from None
        judged += len(has)
    if not judged:
        raise ValueError(
            f"{index.root}: no clip has statistics of a mask, which data.filter.rules judges; prepare the data set with masks, or leave "
            "data.filter.rules out"
        )
    names = sorted(judge.names)
    return np.array([*(names.index(name) for name in judge.names), -1], np.int8)[reasons], tuple(names)


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
        start = np.cumsum(lengths) - lengths
        found = []
        for i, key in enumerate(row.tobytes() for row in alike):
            if key not in self._known:
                frames = slice(start[i], start[i] + lengths[i])
                self._known[key] = self._ask(foreground[frames], border[frames], flatness[i], consistency[i])
            found.append(self._known[key])
        return np.array(found, np.int64)

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
