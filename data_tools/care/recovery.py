"""dataset.json made again after it was lost or damaged: from the shards' statistics and the ledger, which say what came in when."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from data_tools.building.ledger import LEDGER, Outcome
from data_tools.care.rewriting import REWRITTEN, unfinished
from data_tools.dataset import DATASET, Dataset, Snapshot, digest_of
from data_tools.places import Place, listed, read_bytes, write_atomic
from data_tools.sample import SCHEMA_VERSION
from data_tools.shards import FOLDER, KINDS, ShardStats, finished_shard, read_table, to_json

WITHDRAWN = f"{DATASET} was lost"


def lost(root: Place) -> bool:
    """Are there shards, and no dataset.json that says which of them make the data set."""
    try:
        content = json.loads(read_bytes(root / DATASET))
        Dataset.model_validate(content)
    except (FileNotFoundError, NotADirectoryError):
        return bool(listed(root / FOLDER)) and not unfinished(root)
    except ValidationError:
        return not isinstance(content, dict) or content.get("schema_version", SCHEMA_VERSION) == SCHEMA_VERSION
    except ValueError:
        return True
    return False


def recovered(root: Place) -> Dataset:
    """What dataset.json said, as far as that is known.

    Of a data set that only grew it is the same but for the settings, which are saved where the damaged file still shows them;
    without them nothing can be added. Where shards were rewritten, all is in one new snapshot, and the older ones are withdrawn.

    Raises:
        ValueError: nobody can say which shards belong to it.
    """
    stats = _statistics(root)
    if not stats:
        raise ValueError(f"{root}: {DATASET} is lost, and there is no whole shard; run `prepare` into an empty folder")
    came = _came(root)
    names = sorted(stats, key=lambda name: (name.partition("-")[0], name))
    first = {name: _snapshot_of(root, name, came) for name in names}
    count = max(first.values())
    rewritten = any(REWRITTEN.fullmatch(name) for name in names)
    snapshots = [
        _snapshot(number, [stats[n] for n in names if first[n] <= number], WITHDRAWN if rewritten else "")
        for number in range(1, count + 1)
    ]
    if rewritten:
        snapshots.append(_snapshot(count + 1, [stats[name] for name in names]))
    return Dataset(settings=_settings(root), snapshots=tuple(snapshots))


def write_recovered(root: Place, dataset: Dataset) -> None:
    """Write dataset.json."""
    write_atomic(root / DATASET, to_json(dataset))


def _statistics(root: Place) -> dict[str, ShardStats]:
    """Of every shard that there is a file of."""
    names = {
        file.removesuffix(f".{kind}") for kind in KINDS for file in listed(root / FOLDER) if file.endswith(f".{kind}")
    }
    stats = {name: finished_shard(root, name) for name in names if not name.startswith(".")}
    for name in sorted(stats):
        rewritten = REWRITTEN.fullmatch(name)
        if stats[name] is None:
            raise ValueError(
                f"{root}: {DATASET} and {name}.stats.json are both lost: restore one of them, or remove the shard"
            )
        if rewritten and rewritten[1] in stats:
            raise ValueError(
                f"{root}: {DATASET} is lost, and shards {rewritten[1]} and {name} are both there: one took the other's place in a run "
                "that was killed; remove one of them"
            )
    return {name: one for name, one in stats.items() if one is not None}


def _came(root: Place) -> dict[str, int]:
    """Film -> the snapshot that its clips came in with, from the ledger."""
    try:
        lines = read_bytes(root / LEDGER).decode().removesuffix("\n").split("\n")
        rows = [Outcome.model_validate_json(line) for line in lines]
    except (FileNotFoundError, ValueError):
        return {}
    return {row.film: max(row.snapshot, 1) for row in rows if row.status == "used"}


def _snapshot_of(root: Place, name: str, came: Mapping[str, int]) -> int:
    if not came or max(came.values()) == 1:
        return 1
    return max(came.get(film, 1) for film in read_table(root, name)["film"].unique().to_pylist())


def _snapshot(number: int, stats: Sequence[ShardStats], withdrawn: str = "") -> Snapshot:
    return Snapshot(
        id=str(number),
        digest=digest_of(stats),
        shards=tuple(one.name for one in stats),
        clips=sum(one.clips for one in stats),
        frames=sum(one.frames for one in stats),
        bytes=sum(one.bytes for one in stats),
        withdrawn=withdrawn,
    )


def _settings(root: Place) -> dict[str, Any]:
    """What a damaged dataset.json still shows of the settings, which stand at its beginning."""
    try:
        text = read_bytes(root / DATASET).decode("utf-8", "replace")
        found, _ = json.JSONDecoder().raw_decode(text.partition('"settings":')[2].lstrip())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
