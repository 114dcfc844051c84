"""What the filters of a config and a ClipSpec ask of a clip, as conditions on chunks of the index. Imports no torch."""

from __future__ import annotations

import difflib
import json
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fbm_dist.data.index.arrays import Chunk, chunks, mapped
from fbm_dist.data.index.cache import built, hashed
from fbm_dist.data.index.exclusion import open_exclusion
from fbm_dist.data.index.index import Index, name_id
from fbm_dist.schema import ClipSpec, Filter

log = logging.getLogger("fbm_dist.data")

IDS = 1 << 63  # `index.name_id` is uniform below this


@dataclass(frozen=True)
class Condition:
    """One thing that a setting asks of a clip."""

    told: str  # what it asks for
    lost: str  # what a clip is that does not have it
    holds: Callable[[Chunk], np.ndarray]  # bool per row of the chunk: has it
    needed: bool = False  # by the clip settings: a clip that is left out is worth a warning
    remedy: str = "relax that setting"  # where no clip has it; `{most}`: the most of `amount` that one has
    amount: Callable[[Chunk], np.ndarray] | None = None  # per row of the chunk: how much it has of what is asked for


def filter_text(chosen: Filter) -> str:
    """All that a filter says, with the digest of the exclusion list's keys in place of its path."""
    said = chosen.model_dump(mode="json", exclude={"exclude_keys"})
    said["exclude_keys"] = open_exclusion(chosen.exclude_keys).digest if chosen.exclude_keys else None
    said["groups"], said["exclude_groups"] = sorted(set(chosen.groups)), sorted(set(chosen.exclude_groups))
    return json.dumps(said, sort_keys=True)


def warn_of_strange_lines(chosen: Filter) -> None:
    """A list of files, say, in place of keys would leave out nothing, unnoticed."""
    if chosen.exclude_keys is None:
        return
    exclusion = open_exclusion(chosen.exclude_keys)
    if exclusion.strange:
        log.warning(
            "data.filter.exclude_keys=%s: %d lines are no keys of clips (e.g. %r) and exclude nothing",
            *(chosen.exclude_keys, exclusion.strange, exclusion.example),
        )


def filters(index: Index, chosen: Filter) -> Iterator[Condition]:
    """The filter's conditions, in the order in which clips are counted by them; `hold_out` is the last.

    Raises:
        ValueError: it names a split, group or label that the data set does not have, or the manifests lack what its rules judge.
    """
    rows = index.rows
    if chosen.split is not None:
        split = index.splits.index(_known("split", chosen.split, sorted(index.splits)))
        told = f"split={chosen.split}"
        yield Condition(told, f"not {told}", lambda chunk: chunk.of(rows)["split"] == split)
    if chosen.groups:
        wanted = _group_ids(index, chosen.groups, "groups")
        told = f"groups={','.join(chosen.groups)}"
        yield Condition(told, "of other groups", lambda chunk: np.isin(chunk.of(rows)["group"], wanted))
    if chosen.exclude_groups:
        unwanted = _group_ids(index, chosen.exclude_groups, "exclude_groups")
        told = f"exclude_groups={','.join(chosen.exclude_groups)}"
        yield Condition(told, "of excluded groups", lambda chunk: ~np.isin(chunk.of(rows)["group"], unwanted))
    if chosen.exclude_keys is not None:
        exclusion = open_exclusion(chosen.exclude_keys)
        yield Condition("exclude_keys", "of excluded keys", lambda chunk: ~exclusion.holds(chunk.of(index.keys)))
    if chosen.labelled is not None:
        column = list(index.label_names).index(_known("labelled", chosen.labelled, tuple(index.label_names)))
        told = f"labelled={chosen.labelled}"
        yield Condition(told, f"not {told}", lambda chunk: chunk.of(index.labels, column) >= 0)
    if chosen.pruned:
        yield from _pruned(lambda chunk: chunk.of(rows)["verdict"], index.verdicts, "pruned")
    if chosen.rules is not None:
        from fbm_dist.data.index.pruning import VERDICT, write_verdicts  # pyarrow: not in reader processes

        rules = chosen.rules
        folder = index.folder / f"verdicts-{hashed(rules.model_dump_json())}"
        names = built(folder, lambda empty: write_verdicts(index, rules, empty))["names"]
        verdict = mapped(folder / VERDICT)
        yield from _pruned(lambda chunk: chunk.of(verdict), names, "rules")
    if chosen.hold_out:
        below = int(chosen.hold_out * IDS)
        told = f"hold_out={chosen.hold_out}" + (", held_out" if chosen.held_out else "")
        lost = "not held out" if chosen.held_out else "held out"
        yield Condition(told, lost, lambda chunk: (chunk.of(rows)["group"] < below) == chosen.held_out)


def needs(index: Index, spec: ClipSpec, counts: np.memmap | None) -> Iterator[Condition]:
    """What the clip settings ask for.

    Args:
        counts: (clips) how many frames of each take part, where single frames do (`manifest.write_ranked`).
    """
    rows = index.rows
    yield Condition(
        f"at least {spec.span} stored frames ({_spaced(spec)})",
        f"shorter than {spec.span} frames",
        lambda chunk: chunk.of(rows)["frames"] >= spec.span,
        needed=True,
        remedy=f"the longest has {{most}}: prepare longer clips (max_frames={spec.span} or more, of shots that are as long), "
        f"or lower {_spaced(spec)} where the objective learns from fewer",
        amount=lambda chunk: chunk.of(rows)["frames"],
    )
    if spec.use_truth_as_mask:
        yield Condition(
            "true masks (data.clip.use_truth_as_mask)",
            "without true masks",
            lambda chunk: chunk.of(rows)["truth_size"] > 0,
            needed=True,
            remedy="prepare films that have true masks beside them, or set data.clip.use_truth_as_mask=false",
        )
    elif spec.mask or spec.resize == "box":
        yield Condition(
            "masks (data.clip.mask)",
            "without masks",
            lambda chunk: chunk.of(rows)["mask_size"] > 0,
            needed=True,
            remedy="prepare the films with masks (masks.kind=unlc), or set data.clip.mask=false for an objective that needs none",
        )
    if counts is not None:
        told = f"frames_per_shot={spec.frames_per_shot}"
        yield Condition(
            told, "with none of the frames of their shot that are taken", lambda chunk: chunk.of(counts) > 0
        )


def check_hold_out(index: Index, conditions: Sequence[Condition], chosen: Filter) -> None:
    """A group is held out if its name's hash lies in the lowest `hold_out` of all hashes: a function of the name alone, so it
    stays where it is when films are added. The share is exact for many groups; of few it may be none or all.

    Args:
        conditions: the filter's others.
    Raises:
        ValueError: it is, among the clips that the other filters leave.
    """
    below, lowest, highest = int(chosen.hold_out * IDS), IDS, -1
    for chunk in chunks(index.clips):
        good = np.ones(len(chunk), bool)
        for condition in conditions:
            good &= condition.holds(chunk)
        groups = chunk.of(index.rows)["group"][good]
        if len(groups):
            lowest, highest = min(lowest, int(groups.min())), max(highest, int(groups.max()))
    if highest < 0 or lowest < below <= highest:  # no clip at all: another error says so
        return
    least, most = math.ceil((lowest + 1) / IDS * 1000) / 1000, math.floor(highest / IDS * 1000) / 1000
    way = f"a share from {least} to {most} splits them" if least <= most else "these groups cannot be split by a share"
    raise ValueError(
        f"{index.root}: hold_out={chosen.hold_out} holds out {'none' if lowest >= below else 'all'} of the groups, which are chosen "
        f"by a hash of their names; {way}, or give hold_out=0 and choose by split, groups and exclude_groups"
    )


def _pruned(verdict: Callable[[Chunk], np.ndarray], names: Sequence[str], key: str) -> Iterator[Condition]:
    """A condition for each reason, so that clips are counted by it."""

    def other_than(number: int) -> Callable[[Chunk], np.ndarray]:
        return lambda chunk: verdict(chunk) != number

    for name, number in sorted((name, number) for number, name in enumerate(names)):
        yield Condition(f"{key} (not {name})", name, other_than(number))


def _spaced(spec: ClipSpec) -> str:
    """The settings that say how many stored frames a clip covers."""
    if spec.within is not None:
        return "data.clip.within"
    return "data.clip.offsets" if spec.offsets else "data.clip.frames, stride"


def _group_ids(index: Index, wanted: Sequence[str], key: str) -> np.ndarray:
    for name in wanted:
        if index.groups:
            _known(key, name, index.groups)
    return np.array([name_id(name) for name in wanted], np.int64)


def _known(key: str, name: str, names: Sequence[str]) -> str:
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(names[:20]) or 'none'}"
    raise ValueError(f"data.filter.{key}: the data set has no {name!r}{hint}")
