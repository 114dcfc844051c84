"""What is known about films beside their frames: labels, groups, splits, true masks, licences, ids. All of it is optional."""

from __future__ import annotations

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


def annotation_of(rows: tuple[Annotation, ...], start: int, stop: int) -> Annotation:
    """What is known about frames [start, stop): the row that covers most of them (the first of equals).

    Where no row covers any, the film's group, split, licence and id still hold, and there are no labels.
    """
    if not rows:
        return Annotation()
    best = max(rows, key=lambda row: row.overlap(start, stop))
    return best if best.overlap(start, stop) else replace(best, span=None, labels={})
