"""Which clips a page shows: some at random of those kept, of those rejected for each reason, and one of each film in question."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

COLUMNS = ("key", "shard", "members", "film", "verdict")  # what it takes to read a sample, and to sort it


class Pool:
    """The rows with the smallest of numbers drawn at random, as they pass."""

    def __init__(self, size: int) -> None:
        self._size, self._drawn = size, list[tuple[float, dict[str, Any]]]()

    def offer(self, table: pa.Table, rows: np.ndarray, numbers: np.ndarray) -> None:
        """Rows of a table with the numbers drawn for them."""
        best = np.argsort(numbers[rows], kind="stable")[: self._size]
        worst = self._drawn[-1][0] if len(self._drawn) == self._size and self._drawn else np.inf
        chosen = [row for row in rows[best].tolist() if numbers[row] < worst]
        drawn = zip(numbers[chosen].tolist(), table.take(chosen).to_pylist(), strict=True) if chosen else ()
        self._drawn = sorted([*self._drawn, *drawn], key=lambda entry: entry[0])[: self._size]

    @property
    def drawn(self) -> list[tuple[float, dict[str, Any]]]:
        """The rows with their numbers, in that order."""
        return list(self._drawn)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """In the order of their numbers."""
        return [row for _, row in self._drawn]


class Choice:
    """Rows of a manifest for `read_sample`. The same shards in the same order, with one seed, give the same choice."""

    def __init__(self, clips: int, rejected: int, films: Collection[str], seed: int) -> None:
        self._all, self._kept, self._rejected = Pool(clips), Pool(clips), dict[str, Pool]()
        self._num_rejected, self._seed, self._shard = rejected, seed, 0
        self._films, self.films = frozenset(films), dict[str, dict[str, Any]]()  # film -> the row of its first clip

    def add(self, table: pa.Table) -> None:
        """Draw from the clips of one shard."""
        numbers = np.random.default_rng([self._seed, self._shard]).random(table.num_rows)
        self._shard += 1
        table = table.select(COLUMNS)
        everything = np.arange(table.num_rows)
        self._all.offer(table, everything, numbers)
        reasons = table["verdict"].combine_chunks()
        clip = pc.list_parent_indices(reasons).to_numpy(zero_copy_only=False)
        reason = np.array(reasons.flatten().to_pylist(), dtype=object)
        self._kept.offer(table, np.setdiff1d(everything, clip), numbers)
        for name in sorted(set(reason.tolist())):
            # several times as many as are shown: a clip is shown for one of its reasons only
            pool = self._rejected.setdefault(name, Pool(4 * self._num_rejected))
            pool.offer(table, np.unique(clip[reason == name]), numbers)
        if self._films:
            for row in np.flatnonzero(pc.is_in(table["film"], pa.array(self._films, pa.string())).to_numpy()).tolist():
                if table["film"][row].as_py() not in self.films:
                    self.films[table["film"][row].as_py()] = table.slice(row, 1).to_pylist()[0]

    @property
    def any(self) -> list[dict[str, Any]]:
        """Clips of all, in reading order."""
        return _in_order(self._all.rows)

    @property
    def kept(self) -> list[dict[str, Any]]:
        """Clips that the stored rules keep, in reading order."""
        return _in_order(self._kept.rows)

    @property
    def rejected(self) -> dict[str, list[dict[str, Any]]]:
        """Reason -> clips that the stored rules reject for it; each stands under the rarest of its reasons."""
        shown: set[str] = set()
        found: dict[str, list[dict[str, Any]]] = {}
        for name in sorted(self._rejected, key=lambda name: (len(self._rejected[name].rows), name)):
            rows = [row for row in self._rejected[name].rows if row["key"] not in shown][: self._num_rejected]
            shown |= {row["key"] for row in rows}
            found[name] = _in_order(rows)
        return found


def _in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: (row["shard"], row["members"][0]["offset"]))
