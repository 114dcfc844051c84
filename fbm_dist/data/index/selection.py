"""Which clips of an index take part: the filters of a config and what a ClipSpec needs, as memory-mapped lists of rows and frames."""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from fbm_dist.data.index.index import Index, name_id
from fbm_dist.data.order.plan import VERSION as PLAN_VERSION
from fbm_dist.schema import ClipSpec, Data, Filter

if TYPE_CHECKING:
    from fbm_dist.data.index.manifest import RankedFrames

log = logging.getLogger("fbm_dist.data")

CHUNK = 1 << 20  # rows looked at together: memory stays flat whatever the size of the data set

ADDED = (
    "hold_out",
    "held_out",
    "rules",
)  # filters that came later: unused, they are not said, so that digests stay what they were
IDS = 1 << 63  # `index.name_id` is uniform below this


@dataclass(frozen=True)
class Condition:
    """One thing that a setting asks of a clip."""

    told: str  # what it asks for
    lost: str  # what a clip is that does not have it
    holds: Callable[[slice], np.ndarray]  # which rows of a slice have it
    needed: bool = False  # by the clip settings: a clip that is left out is worth a warning


def select(index: Index, data: Data) -> Path:
    """The file (npy, int64, ascending) of the row numbers of the clips that take part: never empty.

    With `data.clip.frames_per_shot` a row stands there once for each of its frames that take part, and `frames_file` says which.
    How many clips are left, and why the others are not, is logged, whether the file is new or not.

    Raises:
        ValueError: nothing is left, nothing is held out where a share should be, a filter names a split, group or label that the
            data set does not have, or the manifests lack what the settings go by (statistics of masks, ranks of frames).
    """
    if data.filter.held_out and not data.filter.hold_out:
        raise ValueError("data.filter.held_out takes what data.filter.hold_out leaves out, which is 0; give a share")
    if data.filter.pruned and data.filter.rules is not None:
        raise ValueError(
            "data.filter.pruned goes by the stored verdicts, data.filter.rules judges again; give one of them"
        )
    clip = data.clip
    wanted = (clip.span, clip.mask, clip.use_truth_as_mask, clip.frames_per_shot)
    path = index.folder / f"kept-{_hash(filter_text(data.filter), *wanted)}.npy"
    if not path.exists():
        _make(index, data, path)
    _log(index, clip, json.loads(path.with_suffix(".json").read_text()))
    return path


def frames_file(kept: Path) -> Path:
    """Beside the file that `select` gives with `data.clip.frames_per_shot`: npy, int32, the frame within the stored clip of each entry."""
    return kept.with_suffix(".frames.npy")


def digest(index: Index, data: Data) -> str:
    """Data set, filter and clip settings, each hashed: "data.filter.clip". Equal digests mean the same clips and pixels."""
    # unused, it is not said: it came later, as the filters of `ADDED`
    clip = data.clip.model_dump_json(exclude={"frames_per_shot"} if data.clip.frames_per_shot is None else None)
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


def _make(index: Index, data: Data, path: Path) -> None:
    """Write the lists, `path` last, and beside it what was left out."""
    filters = list(_filters(index, data.filter))
    ranked = _ranked(index, data.clip)
    needs = list(_needs(index, data.clip, ranked))
    kept, lost = _choose(index, filters + needs)
    if data.filter.hold_out:  # the last of the filters
        _check_hold_out(index, filters, data.filter)
    if not len(kept):
        raise ValueError(_why_empty(index, filters + needs))
    told = [
        {"lost": condition.lost, "told": condition.told, "needed": condition.needed, "clips": int(clips)}
        for condition, clips in zip(filters + needs, lost, strict=True)
    ]
    if ranked is not None:
        entries = _marked(index, kept)[ranked.row]
        kept, frames = ranked.row[entries], ranked.frame[entries]
        _write(frames_file(path), lambda file: np.save(file, frames))
    said = json.dumps({"left_out": told, "entries": len(kept)}).encode()
    _write(path.with_suffix(".json"), lambda file: file.write(said))
    _write(path, lambda file: np.save(file, kept))


def _log(index: Index, clip: ClipSpec, said: dict[str, Any]) -> None:
    """One line with the numbers of clips by reason (each clip counts for the first that it meets), a warning for what clips lack."""
    left_out = [reason for reason in said["left_out"] if reason["clips"]]
    clips = len(index.rows)
    text = f"{clips - sum(reason['clips'] for reason in left_out):,} of {clips:,} clips taken"
    if left_out:
        text += ": " + ", ".join(f"{reason['clips']:,} {reason['lost']}" for reason in left_out)
    if clip.frames_per_shot is not None:
        text += f"; {said['entries']:,} frames of them, up to {clip.frames_per_shot} a shot"
    log.info("%s: %s", index.root, text)
    for reason in left_out:
        if reason["needed"]:
            log.warning("%s: %d clips without %s are left out", index.root, reason["clips"], reason["told"])


def _filters(index: Index, chosen: Filter) -> Iterator[Condition]:
    rows = index.rows
    if chosen.split is not None:
        split = index.splits.index(_known("split", chosen.split, index.splits))
        told = f"split={chosen.split}"
        yield Condition(told, f"not {told}", lambda part: rows["split"][part] == split)
    if chosen.groups:
        wanted = _group_ids(index, chosen.groups, "groups")
        told = f"groups={','.join(chosen.groups)}"
        yield Condition(told, "of other groups", lambda part: np.isin(rows["group"][part], wanted))
    if chosen.exclude_groups:
        unwanted = _group_ids(index, chosen.exclude_groups, "exclude_groups")
        told = f"exclude_groups={','.join(chosen.exclude_groups)}"
        yield Condition(told, "of excluded groups", lambda part: ~np.isin(rows["group"][part], unwanted))
    if excluded := _excluded_keys(chosen.exclude_keys):
        keys = np.array([key.encode() for key in excluded])
        yield Condition("exclude_keys", "of excluded keys", lambda part: ~np.isin(index.keys[part], keys))
    if chosen.labelled is not None:
        column = list(index.label_names).index(_known("labelled", chosen.labelled, tuple(index.label_names)))
        told = f"labelled={chosen.labelled}"
        yield Condition(told, f"not {told}", lambda part: index.labels[part, column] >= 0)
    if chosen.pruned:
        yield from _pruned(rows["verdict"], index.verdicts, "pruned")
    if chosen.rules is not None:
        from fbm_dist.data.index.pruning import verdicts  # pyarrow is needed only here, not in reader processes

        yield from _pruned(*verdicts(index, chosen.rules), "rules")
    if chosen.hold_out:
        below = int(chosen.hold_out * IDS)
        told = f"hold_out={chosen.hold_out}" + (", held_out" if chosen.held_out else "")
        lost = "not held out" if chosen.held_out else "held out"
        yield Condition(told, lost, lambda part: (rows["group"][part] < below) == chosen.held_out)


def _pruned(verdict: np.ndarray, names: Sequence[str], key: str) -> Iterator[Condition]:
    """A condition for each reason, so that clips are counted by it."""

    def other_than(number: int) -> Callable[[slice], np.ndarray]:
        return lambda part: verdict[part] != number

    for number, name in enumerate(names):
        yield Condition(f"{key} (not {name})", name, other_than(number))


def _check_hold_out(index: Index, filters: list[Condition], chosen: Filter) -> None:
    """A group is held out if its name's hash lies in the lowest `hold_out` of all hashes: a function of the name alone, so it
    stays where it is when films are added. The share is exact for many groups; of few it may be none or all.

    Raises:
        ValueError: it is, among the clips that the other filters leave.
    """
    below, lowest, highest = int(chosen.hold_out * IDS), IDS, -1
    for part in _parts(len(index.rows)):
        good = np.ones(len(index.rows[part]), bool)
        for condition in filters[:-1]:
            good &= condition.holds(part)
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


def _ranked(index: Index, spec: ClipSpec) -> RankedFrames | None:
    """The frames that take part if their clips do; None where it is the clips themselves."""
    if spec.frames_per_shot is None:
        return None
    from fbm_dist.data.index.manifest import ranked_frames  # pyarrow is needed only here, not in reader processes

    return ranked_frames(index, spec.frames_per_shot)


def _needs(index: Index, spec: ClipSpec, ranked: RankedFrames | None) -> Iterator[Condition]:
    rows = index.rows
    told = f"at least {spec.span} stored frames (data.clip.frames, stride)"
    yield Condition(
        told, f"shorter than {spec.span} frames", lambda part: rows["frames"][part] >= spec.span, needed=True
    )
    if spec.mask or spec.use_truth_as_mask:
        name = "truth" if spec.use_truth_as_mask else "mask"
        told = "true masks (data.clip.use_truth_as_mask)" if spec.use_truth_as_mask else "masks (data.clip.mask)"
        lost = "without true masks" if spec.use_truth_as_mask else "without masks"
        yield Condition(told, lost, lambda part: rows[f"{name}_size"][part] > 0, needed=True)
    if ranked is not None:
        some = _marked(index, ranked.row)
        told = f"frames_per_shot={spec.frames_per_shot}"
        yield Condition(told, "with none of the frames of their shot that are taken", lambda part: some[part])


def _marked(index: Index, rows: np.ndarray) -> np.ndarray:
    """bool (clips): is among these rows."""
    marked = np.zeros(len(index.rows), bool)
    marked[rows] = True
    return marked


def _choose(index: Index, conditions: list[Condition]) -> tuple[np.ndarray, np.ndarray]:
    """Rows that meet all conditions, and how many each condition ruled out after the ones before it."""
    kept = []
    lost = np.zeros(len(conditions), np.int64)
    for part in _parts(len(index.rows)):
        good = np.ones(len(index.rows[part]), bool)
        for number, condition in enumerate(conditions):
            met = condition.holds(part)
            lost[number] += np.count_nonzero(good & ~met)
            good &= met
        kept.append(np.flatnonzero(good) + part.start)
    return np.concatenate(kept).astype(np.int64), lost


def _why_empty(index: Index, conditions: list[Condition]) -> str:
    left, steps = len(index.rows), []
    for condition, lost in zip(conditions, _choose(index, conditions)[1], strict=True):
        left -= lost
        if lost:
            steps.append(f"{condition.told} keeps {left}")
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
