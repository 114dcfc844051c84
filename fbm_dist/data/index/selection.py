"""Which clips of an index take part, and what is to be known of them: lists made once a machine and mapped. Imports no torch."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fbm_dist.data.index.arrays import ArrayFile, Chunk, chunks, mapped, read_part
from fbm_dist.data.index.cache import built, hashed
from fbm_dist.data.index.filters import (
    IDS,
    Condition,
    check_hold_out,
    filter_text,
    filters,
    needs,
    warn_of_strange_lines,
)
from fbm_dist.data.index.index import CODECS, Index
from fbm_dist.data.lazy import Lazy
from fbm_dist.data.order.plan import VERSION as PLAN_VERSION
from fbm_dist.schema import ClipSpec, Filter

__all__ = ["Selected", "digest", "filter_text", "select"]

log = logging.getLogger("fbm_dist.data")

KEPT, FRAMES, STARTS = "kept.npy", "frames.npy", "starts.npy"


@dataclass(frozen=True)
class Selected(Lazy):
    """The clips that take part; with `frames_per_shot` an entry for each of their frames that do. Small enough to pickle.

    Attributes:
        folder: where the lists are cached.
        entries: how many; never 0.
        single_frames: entries are single frames, and `frames` says which.
        codecs: of these clips, in the order of `CODECS`.
        smallest: shortest side of any of these clips' frames, in pixels.
        without_truth: entries whose clips have no true masks.
        only_film: the id of the film that all of them are of; None: there are several.
    """

    folder: Path
    entries: int
    single_frames: bool
    codecs: tuple[str, ...]
    smallest: int
    without_truth: int
    only_film: int | None

    def __len__(self) -> int:
        return self.entries

    @cached_property
    def kept(self) -> np.memmap:
        """int64 (entries), ascending: the row of each entry's clip."""
        return mapped(self.folder / KEPT)

    @cached_property
    def frames(self) -> np.memmap | None:
        """int32 (entries): which frame of the stored clip, where single frames take part."""
        return mapped(self.folder / FRAMES) if self.single_frames else None

    @cached_property
    def starts(self) -> np.memmap:
        """int64 (shards + 1): the entries of shard s are starts[s] to starts[s + 1] - 1."""
        return mapped(self.folder / STARTS)

    def chunks(self, index: Index) -> Iterator[tuple[Chunk, np.ndarray]]:
        """The index a part at a time: the rows of a chunk, and which of them take part (int64, counted from the chunk's first).

        A row stands there once for each of its entries.
        """
        for chunk in chunks(index.clips):
            first, last = np.searchsorted(self.kept, [chunk.start, chunk.stop]).tolist()
            if first < last:
                yield chunk, read_part(self.kept, first, last) - chunk.start


def select(index: Index, chosen: Filter, spec: ClipSpec, *, both_sides: bool = True) -> Selected:
    """The clips that pass the filter and have what the clip settings need.

    How many clips are left, and why the others are not, is logged, whether the lists are new or not.

    Args:
        both_sides: `hold_out` has to split these groups; False: it may hold out none or all of them, as where data sets are mixed.
    Raises:
        ValueError: nothing is left, nothing is held out where a share should be, a filter names a split, group or label that the
            data set does not have, or the manifests lack what the settings go by (statistics of masks, ranks of frames).
    """
    if chosen.held_out and not chosen.hold_out:
        raise ValueError("data.filter.held_out takes what data.filter.hold_out leaves out, which is 0; give a share")
    if chosen.pruned and chosen.rules is not None:
        raise ValueError(
            "data.filter.pruned goes by the stored verdicts, data.filter.rules judges again; give one of them"
        )
    wanted = (spec.span, spec.mask or spec.resize == "box", spec.use_truth_as_mask, spec.frames_per_shot)
    unsplit = () if both_sides or not chosen.hold_out else ("one side may be empty",)
    folder = index.folder / f"kept-{hashed(filter_text(chosen), *wanted, *unsplit)}"
    about = built(folder, lambda empty: _write(index, chosen, spec, empty, both_sides))
    _log(index, spec, about)
    warn_of_strange_lines(chosen)
    return Selected(
        folder=folder,
        entries=about["entries"],
        single_frames=spec.frames_per_shot is not None,
        codecs=tuple(about["codecs"]),
        smallest=about["smallest"],
        without_truth=about["without_truth"],
        only_film=about.get("only_film"),  # lists that an earlier version cached do not say it
    )


def digest(index: Index, chosen: Filter, spec: ClipSpec) -> str:
    """Data set, filter and clip settings, each hashed: "data.filter.clip". Equal digests mean the same clips and pixels."""
    # a setting that came later changes no digest where it is not used: checkpoints and encoders from before stay valid
    clip = spec.model_dump_json(exclude={"degrade"} if spec.degrade is None else None)
    return f"{index.digest[:16]}.{hashed(filter_text(chosen))}.{hashed(clip, PLAN_VERSION)}"


def _write(index: Index, chosen: Filter, spec: ClipSpec, folder: Path, both_sides: bool) -> dict[str, Any]:
    """Write the lists, and say what is to be known of them and what was left out."""
    counts, ranked = _ranked(index, spec)
    conditions = list(filters(index, chosen))
    if chosen.hold_out and both_sides:
        check_hold_out(index, conditions[:-1], chosen)
    conditions += needs(index, spec, counts)
    lists = _Lists(index, folder, counts, ranked)
    lost, most = np.zeros((2, len(conditions)), np.int64)
    try:
        for chunk in chunks(index.clips):
            good = np.ones(len(chunk), bool)
            for number, condition in enumerate(conditions):
                if condition.amount is not None:
                    most[number] = condition.amount(chunk).max(initial=most[number], where=good)
                met = condition.holds(chunk)
                lost[number] += np.count_nonzero(good & ~met)
                good &= met
            lists.append(chunk, good)
    finally:
        facts = lists.close()
    if not facts["entries"]:
        raise ValueError(_why_empty(index, conditions, lost.tolist(), most.tolist()))
    left_out = [
        {"lost": condition.lost, "told": condition.told, "needed": condition.needed, "clips": clips}
        for condition, clips in zip(conditions, lost.tolist(), strict=True)
    ]
    return {"left_out": left_out, **facts}


class _Lists:
    """The files of `Selected`, and its facts, gathered chunk by chunk."""

    def __init__(self, index: Index, folder: Path, counts: np.memmap | None, ranked: np.memmap | None) -> None:
        self._index, self._counts, self._ranked = index, counts, ranked
        self._kept = ArrayFile(folder / KEPT, np.int64)
        self._frames = ArrayFile(folder / FRAMES, np.int32) if ranked is not None else None
        self._starts = folder / STARTS
        self._by_shard = np.zeros(len(index.shards), np.int64)
        self._read = 0  # ranked frames of the chunks so far
        self._codecs = np.zeros(len(CODECS), bool)
        self._smallest, self._without_truth = 1 << 30, 0
        self._films = IDS, -1  # the lowest id and the highest

    def append(self, chunk: Chunk, good: np.ndarray) -> None:
        """Take the rows of a chunk that are good."""
        rows = chunk.of(self._index.rows)[good]
        row = np.flatnonzero(good) + chunk.start
        entries = np.ones(len(rows), np.int64)
        if self._counts is not None and self._ranked is not None and self._frames is not None:
            every = chunk.of(self._counts)
            entries = every[good].astype(np.int64)
            frames = read_part(self._ranked, self._read, self._read + int(every.sum()))
            self._read += len(frames)
            self._frames.append(frames[np.repeat(good, every)])
        self._kept.append(np.repeat(row, entries))
        if not len(rows):
            return
        first = int(rows["shard"][0])
        count = np.bincount(rows["shard"] - first, weights=entries).astype(np.int64)
        self._by_shard[first : first + len(count)] += count
        self._codecs[rows["codec"]] = True
        self._smallest = min(self._smallest, int(rows["height"].min()), int(rows["width"].min()))
        self._without_truth += int(entries[rows["truth_size"] == 0].sum())
        lowest, highest = self._films
        self._films = min(lowest, int(rows["film"].min())), max(highest, int(rows["film"].max()))

    def close(self) -> dict[str, Any]:
        """End the files; what `Selected` says."""
        self._kept.close()
        if self._frames is not None:
            self._frames.close()
        np.save(self._starts, np.concatenate([[0], np.cumsum(self._by_shard)]))
        return {
            "entries": len(self._kept),
            "codecs": [codec for codec, some in zip(CODECS, self._codecs.tolist(), strict=True) if some],
            "smallest": self._smallest,
            "without_truth": self._without_truth,
            "only_film": self._films[0] if self._films[0] == self._films[1] else None,
        }


def _ranked(index: Index, spec: ClipSpec) -> tuple[np.memmap, np.memmap] | tuple[None, None]:
    """How many frames of each clip take part if it does, and which, clip by clip; None where it is the clips themselves."""
    below = spec.frames_per_shot
    if below is None:
        return None, None
    from fbm_dist.data.index import manifest  # pyarrow is needed only here, not in reader processes

    folder = index.folder / f"ranked-{below}"
    built(folder, lambda empty: manifest.write_ranked(index, below, empty))
    return mapped(folder / manifest.COUNTS), mapped(folder / manifest.FRAMES)


def _log(index: Index, spec: ClipSpec, about: dict[str, Any]) -> None:
    """One line with the numbers of clips by reason (each clip counts for the first that it meets), a warning for what clips lack."""
    left_out = [reason for reason in about["left_out"] if reason["clips"]]
    text = f"{index.clips - sum(reason['clips'] for reason in left_out):,} of {index.clips:,} clips taken"
    if left_out:
        text += ": " + ", ".join(f"{reason['clips']:,} {reason['lost']}" for reason in left_out)
    if spec.frames_per_shot is not None:
        text += f"; {about['entries']:,} frames of them, up to {spec.frames_per_shot} a shot"
    if about["smallest"] < spec.size:
        text += (
            f"; frames of {about['smallest']} pixels (short_side of prepare) are enlarged to data.clip.size={spec.size}"
        )
    log.info("%s: %s", index.root, text)
    for reason in left_out:
        if reason["needed"]:
            log.warning("%s: %d clips without %s are left out", index.root, reason["clips"], reason["told"])


def _why_empty(index: Index, conditions: Sequence[Condition], lost: Sequence[int], most: Sequence[int]) -> str:
    left, steps, remedy = index.clips, list[str](), ""
    for condition, clips, amount in zip(conditions, lost, most, strict=True):
        left -= clips
        if clips:
            steps.append(f"{condition.told} keeps {left}")
            remedy = condition.remedy.format(most=amount)
        if not left:
            break
    return f"{index.root}: no clip is left of {index.clips}: {', then '.join(steps)}; {remedy}"
