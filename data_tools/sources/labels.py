"""What is known about films beside their frames: labels, groups, splits, true masks, licences, ids. All of it is optional."""

from __future__ import annotations

import heapq
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

# Columns that have a meaning; `path` names the film.
RESERVED = frozenset({"path", "id", "start", "stop", "group", "split", "truth", "licence", "attribution"})
INFORMATION = frozenset({"frames", "width", "height", "fps", "source", "duration"})  # about the file: never labels


@dataclass(frozen=True, slots=True)
class Annotation:
    """One row: what is known about frames [start, stop) of a film (None: all of them)."""

    span: tuple[int, int] | None = None
    group: str | None = None
    split: str | None = None
    truth: str | None = None  # folder of true masks, relative to the file that the row stands in
    licence: str | None = None
    attribution: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    id: str | None = None  # the film's name where it comes from, e.g. for opting out

    def overlap(self, start: int, stop: int) -> int:
        """How many frames of [start, stop) the row covers."""
        if self.span is None:
            return stop - start
        return max(0, min(stop, self.span[1]) - max(start, self.span[0]))


def annotation(known: Mapping[str, str], labels: dict[str, str]) -> Annotation:
    """One row from its cells.

    Args:
        known: meaning (of `RESERVED`) -> text, where there is any.
        labels: label -> value.
    Raises:
        ValueError: a span that is no span.
    """
    start, stop = known.get("start"), known.get("stop")
    span = None
    if (start is None) != (stop is None):
        raise ValueError("give both start and stop, or neither")
    if start is not None and stop is not None:
        if not (start.isdecimal() and stop.isdecimal() and int(start) < int(stop)):
            raise ValueError(f"start {start!r} and stop {stop!r} are no frame span; expected 0 <= start < stop")
        span = (int(start), int(stop))

    def shared(meaning: str) -> str | None:
        text = known.get(meaning)
        return sys.intern(text) if text is not None else None  # a few texts stand in hundreds of thousands of rows

    return Annotation(
        span,
        shared("group"),
        shared("split"),
        known.get("truth"),
        shared("licence"),
        shared("attribution"),
        labels,
        known.get("id"),
    )


def filled(rows: tuple[Annotation, ...], base: tuple[Annotation, ...]) -> tuple[Annotation, ...]:
    """`rows` with what they leave open taken from `base`: group, split, single labels and so on; spans of `rows` win as well.

    A row about the whole film holds for each span of `base`; a row about a span takes labels only from a row of `base` that
    covers all of it.
    """
    if not rows or not base:
        return rows or base
    if all(row.span is None for row in rows):
        return tuple(
            _over(rows[0], below, below.span) for below in base
        )  # of several for the same frames, the first counts
    return tuple(_over(row, annotation_of(base, *(row.span or (0, sys.maxsize))), row.span) for row in rows)


def _over(own: Annotation, below: Annotation, span: tuple[int, int] | None) -> Annotation:
    return Annotation(
        span,
        own.group or below.group,
        own.split or below.split,
        own.truth or below.truth,
        own.licence or below.licence,
        own.attribution or below.attribution,
        {**below.labels, **own.labels},
        own.id or below.id,
    )


def span_edges(rows: tuple[Annotation, ...]) -> frozenset[int]:
    """Frames before which a shot is cut, so that each clip lies wholly inside one span or wholly outside all.

    A frame belongs to the first row that covers it: of spans that overlap, the one that stands first has the frames that they
    share, and a row behind one about the whole film has none. An edge is where frames begin to belong to another row, or to none.
    Spans that touch have an edge between them, whatever they say. Rows about whole films alone have no edges.
    """
    spans = [row.span or (0, sys.maxsize) for row in rows]
    coming = sorted(range(len(rows)), key=lambda number: -spans[number][0])  # the next to begin stands last
    covering: list[int] = []  # a heap of rows; of those that have ended, the ones behind the first may still be in it
    edges, owner = set[int](), None
    for frame in sorted({edge for span in spans for edge in span}):
        while coming and spans[coming[-1]][0] <= frame:
            heapq.heappush(covering, coming.pop())
        while covering and spans[covering[0]][1] <= frame:
            heapq.heappop(covering)
        first = covering[0] if covering else None
        if first != owner:
            edges.add(frame)
        owner = first
    return frozenset(edges - {0, sys.maxsize})


def annotation_of(rows: tuple[Annotation, ...], start: int, stop: int) -> Annotation:
    """What is known about frames [start, stop): the first row that covers all of them.

    Where none does, there are no labels; group, split, licence and id of the row that covers most of them still hold (of the
    first, where none covers any).
    """
    if not rows:
        return Annotation()
    best = max(rows, key=lambda row: row.overlap(start, stop))
    return best if best.overlap(start, stop) == stop - start else replace(best, span=None, labels={})
