"""Names of rewritten shards, and what runs that were killed leave behind: swept before the next one works."""

from __future__ import annotations

import re

from data_tools.dataset import STAGING, Dataset
from data_tools.places import Place, listed, remove
from data_tools.shards import FOLDER, KINDS

REWRITTEN = re.compile(r"(.+)-([1-9][0-9]*)")  # 000003-1, 000003-2


def successor(dataset: Dataset, name: str) -> str:
    """The name of a shard that takes the place of `name`: the same whoever asks, as long as no snapshot is added."""
    taken = {shard for snapshot in dataset.snapshots for shard in snapshot.shards}
    rewritten = REWRITTEN.fullmatch(name)
    base, number = (rewritten[1], int(rewritten[2])) if rewritten else (name, 0)
    while True:
        number += 1
        if f"{base}-{number}" not in taken:
            return f"{base}-{number}"


def unfinished(root: Place) -> bool:
    """Is there an unfinished `prepare` in the data set's folder."""
    staging = root / STAGING
    return staging.is_dir()


def leftovers(root: Place, dataset: Dataset) -> list[str]:
    """Files in shards/ that are of no shard of a snapshot that can be read."""
    live = {name for snapshot in dataset.snapshots if not snapshot.withdrawn for name in snapshot.shards}
    files = {f"{name}.{kind}" for name in live for kind in KINDS}
    return [name for name in listed(root / FOLDER) if name not in files]


def sweep(root: Place, dataset: Dataset) -> int:
    """Remove leftovers; returns how many. Shards that an unfinished `prepare` has packed stay: it will use them."""
    waiting = unfinished(root)
    known = {name for snapshot in dataset.snapshots for name in snapshot.shards}
    count = 0
    for file in sorted(leftovers(root, dataset), key=lambda file: not file.endswith(KINDS[0])):  # done-markers first
        name = file.partition(".")[0]
        if not waiting or file.startswith(".") or name in known or REWRITTEN.fullmatch(name):
            remove(root / FOLDER / file)
            count += 1
    return count
