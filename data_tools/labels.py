"""labels.csv: what is known about films: labels, groups, splits, true masks, licences. All of it is optional."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

RESERVED = frozenset({"path", "start", "stop", "group", "split", "truth", "licence", "attribution"})
INFORMATION = frozenset({"frames", "width", "height", "fps", "source", "duration"})  # about the file: never labels


@dataclass(frozen=True)
class Annotation:
    """One row: what is known about frames [start, stop) of a film (None: all of them)."""

    span: tuple[int, int] | None = None
    group: str | None = None
    split: str | None = None
    truth: str | None = None  # folder of true masks, relative to the file
    licence: str | None = None
    attribution: str | None = None
    labels: dict[str, str] = field(default_factory=dict)

    def overlap(self, start: int, stop: int) -> int:
        """How many frames of [start, stop) the row covers."""
        if self.span is None:
            return stop - start
        return max(0, min(stop, self.span[1]) - max(start, self.span[0]))


def read_labels(path: Path, choose: Mapping[str, str] | None = None) -> dict[str, tuple[Annotation, ...]]:
    """Read a labels.csv: film (path with forward slashes, relative to the file) -> its rows.

    Args:
        path: CSV with a column `path`; the columns of `RESERVED` have their meaning, those of `INFORMATION` are
            passed over, every other one is a label.
        choose: {label: column}: only these columns, under these names.
    Raises:
        ValueError: no `path` column, a chosen column is missing, a span that is no span; the text names the line.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = [c for c in reader.fieldnames or () if c]
            if "path" not in columns:
                raise ValueError(f"{path}: no column 'path'; it has {', '.join(columns) or 'none'}")
            labels = _label_columns(path, columns, choose)
            found: dict[str, list[Annotation]] = {}
            for row in reader:
                name = (row["path"] or "").strip()
                if name:
                    where = f"{path}, line {reader.line_num}"
                    found.setdefault(normal(name), []).append(_annotation(row, labels, where))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from None
    return {name: tuple(rows) for name, rows in found.items()}


def normal(name: str) -> str:
    """A path as labels.csv and the data set spell it: forward slashes, no `./`."""
    return str(PurePosixPath(name.replace("\\", "/")))


def annotation_of(rows: tuple[Annotation, ...], start: int, stop: int) -> Annotation:
    """What is known about frames [start, stop): the row that covers most of them (the first of equals).

    Where no row covers any, the film's group, split and licence still hold, and there are no labels.
    """
    if not rows:
        return Annotation()
    best = max(rows, key=lambda row: row.overlap(start, stop))
    if best.overlap(start, stop):
        return best
    return Annotation(None, best.group, best.split, best.truth, best.licence, best.attribution)


def _label_columns(path: Path, columns: list[str], choose: Mapping[str, str] | None) -> dict[str, str]:
    if choose is None:
        return {c: c for c in columns if c not in RESERVED | INFORMATION}
    missing = [c for c in choose.values() if c not in columns]
    if missing:
        raise ValueError(f"{path}: no column {missing[0]!r}, which `labels` names; it has {', '.join(columns)}")
    return dict(choose)


def _annotation(row: Mapping[str, str | None], labels: Mapping[str, str], where: str) -> Annotation:
    def text(column: str) -> str | None:
        return (row.get(column) or "").strip() or None

    span = None
    start, stop = text("start"), text("stop")
    if (start is None) != (stop is None):
        raise ValueError(f"{where}: give both start and stop, or neither")
    if start is not None and stop is not None:
        if not (start.isdecimal() and stop.isdecimal() and int(start) < int(stop)):
            raise ValueError(
                f"{where}: start {start!r} and stop {stop!r} are no frame span; expected 0 <= start < stop"
            )
        span = (int(start), int(stop))
    values = {name: value for name, column in labels.items() if (value := text(column)) is not None}
    return Annotation(
        span,
        text("group"),
        text("split"),
        text("truth"),
        text("licence"),
        text("attribution"),
        dict(sorted(values.items())),
    )
