"""The ledger's counts of clips and frames, set right after what the shards hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import pyarrow.compute as pc

from data_tools.building.ledger import Outcome
from data_tools.places import Place
from data_tools.shards import read_table

ALL_DROPPED = "all its clips were damaged and dropped by repair"

Counts = dict[str, tuple[int, int]]  # film -> its clips and their frames


def count(counts: Counts, film: str, num_frames: int) -> None:
    """One more clip."""
    clips, frames = counts.get(film, (0, 0))
    counts[film] = clips + 1, frames + num_frames


def reckoned(root: Place, shards: Iterable[str], counts: Counts, outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The ledger, with the counts of used films as the shards have them. A film with no clip left has failed.

    Args:
        shards: finished ones, whose clips `counts` counts.
    """
    changed = {o.film for o in outcomes if o.status == "used" and counts.get(o.film, (0, 0)) != (o.clips, o.frames)}
    if not changed:
        return list(outcomes)
    kept_frames, kept_clips = Counter[str](), Counter[str]()
    verdicts: dict[str, Counter[str]] = {film: Counter() for film in changed}
    for name in shards:
        table = read_table(root, name).select(["film", "num_frames", "keep", "verdict"])
        for row in table.filter(pc.is_in(table["film"], value_set=pc.cast(sorted(changed), "string"))).to_pylist():
            kept_frames[row["film"]] += sum(row["keep"]) if row["keep"] else row["num_frames"]
            kept_clips[row["film"]] += not row["verdict"]
            verdicts[row["film"]].update(row["verdict"])

    def right(outcome: Outcome) -> Outcome:
        if outcome.status != "used" or outcome.film not in changed:
            return outcome
        clips, frames = counts.get(outcome.film, (0, 0))
        values = {
            "clips": clips,
            "frames": frames,
            "kept_frames": kept_frames[outcome.film],
            "kept_clips": kept_clips[outcome.film],
            "verdicts": dict(sorted(verdicts[outcome.film].items())),
        }
        gone = {} if clips else {"status": "failed", "reason": ALL_DROPPED}
        return outcome.model_copy(update=values | gone)

    return [right(outcome) for outcome in outcomes]
