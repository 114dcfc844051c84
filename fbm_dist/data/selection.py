"""Which clips of an index take part: the filters of a config and what a ClipSpec needs, as a memory-mapped list of row numbers."""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
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

Condition = tuple[str, Callable[[slice], np.ndarray]]  # what it asks for, and which rows of a slice have it


def select(index: Index, data: Data) -> Path:
    """The file (npy, int64, ascending) of the row numbers of the clips that take part: never empty.

    What the clip settings cannot use (too short, no masks) is left out and logged with its number.

    Raises:
        ValueError: nothing is left, or a filter names a split, group or label that the data set does not have.
    """
    excluded = _excluded_keys(data.filter.exclude_keys)
    filters = list(_filters(index, data.filter, excluded))
    needs = list(_needs(index, data.clip))
    name = _hash(filter_text(data.filter), data.clip.span, data.clip.mask, data.clip.use_truth_as_mask)
    path = index.folder / f"kept-{name}.npy"
    if not path.exists():
        kept, lost = _choose(index, filters + needs)
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
