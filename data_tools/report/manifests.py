"""The manifests of a data set as a stream, shard by shard: a collection of a hundred million clips has no room in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import pyarrow as pa

from data_tools.dataset import Snapshot, digest_of
from data_tools.places import Place
from data_tools.shards import ShardStats, finished_shard, read_table

AHEAD = 8  # shards that are read at a time: an object store answers slowly, but many at once


def manifests(root: Place, snapshot: Snapshot) -> Iterator[pa.Table]:
    """The manifest of each shard (`shards.SCHEMA`), in reading order; no more than `AHEAD` are in memory.

    Raises:
        ValueError: a shard is missing; or, after the last one, the shards are no longer those that the snapshot names.
    """
    seen: list[ShardStats] = []
    with ThreadPoolExecutor(AHEAD) as pool:
        names = iter(snapshot.shards)
        pending: deque[Future[tuple[ShardStats, pa.Table]]] = deque()
        pending.extend(pool.submit(_read, root, name) for name in islice(names, AHEAD))
        while pending:
            stats, table = pending.popleft().result()
            pending.extend(pool.submit(_read, root, name) for name in islice(names, 1))
            seen.append(stats)
            yield table
    if digest_of(seen) != snapshot.digest:
        raise ValueError(
            f"{root}: the shards differ from snapshot {snapshot.id}; see: python -m data_tools verify {root}"
        )


def _read(root: Place, name: str) -> tuple[ShardStats, pa.Table]:
    stats = finished_shard(root, name)
    if stats is None:
        raise ValueError(f"{root}: shard {name} is missing or unfinished; see: python -m data_tools verify {root}")
    return stats, read_table(root, name)
