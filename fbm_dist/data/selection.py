"""Which clips of an index take part: the filters of a config and what a ClipSpec needs, as a memory-mapped list of row numbers."""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from fbm_dist.data.index import Index, name_id
from fbm_dist.data.plan import VERSION as PLAN_VERSION
from fbm_dist.schema import ClipSpec, Data, Filter

log = logging.getLogger("fbm_dist.data")

CHUNK = 1 << 20  # rows looked at together: memory stays flat whatever the size of the data set

ADDED = (
    "hold_out",
    "held_out",
)  # filters that came later: unused, they are not said, so that digests stay what they were
IDS = 1 << 63  # `index.name_id` is uniform below this

Condition = tuple[str, Callable[[slice], np.ndarray]]  # what it asks for, and which rows of a slice have it


def select(index: Index, data: Data) -> Path:
    """The file (npy, int64, ascending) of the row numbers of the clips that take part: never empty.

    What the clip settings cannot use (too short, no masks) is left out and logged with its number.

    Raises:
        ValueError: nothing is left, nothing is held out where a share should be, or a filter names a split, group or label
            that the data set does not have.
    """
    if data.filter.held_out and not data.filter.hold_out:
        raise ValueError("data.filter.held_out takes what data.filter.hold_out leaves out, which is 0; give a share")
    excluded = _excluded_keys(data.filter.exclude_keys)
    filters = list(_filters(index, data.filter, excluded))
    needs = list(_needs(index, data.clip))
    name = _hash(filter_text(data.filter), data.clip.span, data.clip.mask, data.clip.use_truth_as_mask)
    path = index.folder / f"kept-{name}.npy"
    if not path.exists():
        kept, lost = _choose(index, filters + needs)
        if data.filter.hold_out:  # the last of the filters
            _check_hold_out(index, filters, data.filter)
        if not len(kept):
            raise ValueError(_why_empty(index, filters + needs))
        _write(path.with_suffix(".json"), lambda file: file.write(json.dumps(lost.tolist()).encode()))
        _write(path, lambda file: np.save(file, kept))
    lost = json.loads(path.with_suffix(".json").read_text())
    for (told, _), number in list(zip(filters + needs, lost, strict=True))[len(filters) :]:
        if number:
            log.warning("%s: %d clips without %s are left out", index.root, number, told)
    return path


def digest(index: Index, data: Data) -> str:
    """Data set, filter and clip settings, each hashed: "data.filter.clip". Equal digests mean the same clips and pixels."""
    clip = data.clip.model_dump_json()
    return f"{index.digest[:16]}.{_hash(filter_text(data.filter))}.{_hash(clip, PLAN_VERSION)}"


def filter_text(chosen: Filter) -> str:
    """All that a filter says, with the contents of the exclusion list in place of its path."""
    said = chosen.model_dump(mode="json")
    said["exclude_keys"] = sorted(_excluded_keys(chosen.exclude_keys))
    said["groups"], said["exclude_groups"] = sorted(set(chosen.groups)), sorted(set(chosen.exclude_groups))
    for name in ADDED:
        if said[name] == Filter.model_fields[name].default:
            del said[name]
    return json.dumps(said, sort_keys=True)


def _filters(index: Index, chosen: Filter, excluded: Sequence[str]) -> Iterator[Condition]:
    rows = index.rows
    if chosen.split is not None:
        split = _known("split", chosen.split, index.splits)
        yield f"split={chosen.split}", lambda part: rows["split"][part] == index.splits.index(split)
    if chosen.groups:
        wanted = _group_ids(index, chosen.groups, "groups")
        yield f"groups={','.join(chosen.groups)}", lambda part: np.isin(rows["group"][part], wanted)
    if chosen.exclude_groups:
        unwanted = _group_ids(index, chosen.exclude_groups, "exclude_groups")
        yield (
            f"exclude_groups={','.join(chosen.exclude_groups)}",
            lambda part: ~np.isin(rows["group"][part], unwanted),
        )
    if excluded:
        keys = np.array([key.encode() for key in excluded])
        yield "exclude_keys", lambda part: ~np.isin(index.keys[part], keys)
    if chosen.labelled is not None:
        column = list(index.label_names).index(_known("labelled", chosen.labelled, tuple(index.label_names)))
        yield f"labelled={chosen.labelled}", lambda part: index.labels[part, column] >= 0
    if chosen.pruned:
        yield "pruned", lambda part: ~rows["pruned"][part]
    if chosen.hold_out:
        below = int(chosen.hold_out * IDS)
        told = f"hold_out={chosen.hold_out}" + (", held_out" if chosen.held_out else "")
        yield told, lambda part: (rows["group"][part] < below) == chosen.held_out


def _check_hold_out(index: Index, filters: list[Condition], chosen: Filter) -> None:
    """A group is held out if its name's hash lies in the lowest `hold_out` of all hashes: a function of the name alone, so it
    stays where it is when films are added. The share is exact for many groups; of few it may be none or all.

    Raises:
        ValueError: it is, among the clips that the other filters leave.
    """
    below, lowest, highest = int(chosen.hold_out * IDS), IDS, -1
    for part in _parts(len(index.rows)):
        good = np.ones(len(index.rows[part]), bool)
        for _, holds in filters[:-1]:
            good &= holds(part)
        groups = index.rows["group"][part][good]
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


def _needs(index: Index, spec: ClipSpec) -> Iterator[Condition]:
    rows = index.rows
    yield (
        f"at least {spec.span} stored frames (data.clip.frames, stride)",
        lambda part: rows["frames"][part] >= spec.span,
    )
    if spec.mask or spec.use_truth_as_mask:
        name = "truth" if spec.use_truth_as_mask else "mask"
        told = "true masks (data.clip.use_truth_as_mask)" if spec.use_truth_as_mask else "masks (data.clip.mask)"
        yield told, lambda part: rows[f"{name}_size"][part] > 0


def _choose(index: Index, conditions: list[Condition]) -> tuple[np.ndarray, np.ndarray]:
    """Rows that meet all conditions, and how many each condition ruled out after the ones before it."""
    kept = []
    lost = np.zeros(len(conditions), np.int64)
    for part in _parts(len(index.rows)):
        good = np.ones(len(index.rows[part]), bool)
        for number, (_, holds) in enumerate(conditions):
            met = holds(part)
            lost[number] += np.count_nonzero(good & ~met)
            good &= met
        kept.append(np.flatnonzero(good) + part.start)
    return np.concatenate(kept).astype(np.int64), lost


def _why_empty(index: Index, conditions: list[Condition]) -> str:
    left, steps = len(index.rows), []
    for (told, _), lost in zip(conditions, _choose(index, conditions)[1], strict=True):
        left -= lost
        steps.append(f"{told} keeps {left}")
        if not left:
            break
    return f"{index.root}: no clip is left of {len(index.rows)}: {', then '.join(steps)}; relax that setting"


def _parts(length: int) -> Iterator[slice]:
    return (slice(start, min(start + CHUNK, length)) for start in range(0, length, CHUNK))


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


def _excluded_keys(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"data.filter.exclude_keys={path}: cannot be read: {error}") from None
    return sorted({line.strip() for line in lines} - {""})


def _hash(*words: object) -> str:
    return hashlib.sha256(repr(words).encode()).hexdigest()[:16]


def _write(path: Path, content: Callable[[IO[bytes]], object]) -> None:
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    with os.fdopen(handle, "wb") as file:
        content(file)
    Path(temporary).rename(path)
