"""The one table: a row an encoder, beside each other the chosen columns of all protocols."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from fbm_dist.evaluation.leaderboard.parts import Resolved, chosen
from fbm_dist.evaluation.report.results import Cell, Look, Results, Row, Subject, Table

TABLE = "scores"
CHANCE = "chance"


def merge(encoders: Sequence[str], found: Mapping[str, tuple[Resolved, Results]]) -> Table:
    """Put the columns of several evaluations into one table.

    Args:
        encoders: URIs in the order of the rows.
        found: by the title of the part.
    Raises:
        ValueError: a part's `columns` do not fit what it found.
    """
    cells: dict[str, dict[str, Cell]] = {uri: {} for uri in encoders}
    chance: dict[str, Cell] = {}
    looks: dict[str, Look] = {}
    for title, (resolved, results) in found.items():
        for table, column in chosen(resolved.part, results).values():
            here = f"{title}: {column}: {table.name}"  # as a metric: TITLE.COLUMN.TABLE
            looks[here] = table.look(column)
            for subject in results.subjects:
                rows = [row for row in table.rows if row.kind == "measured" and row.name == subject.name]
                if rows and column in rows[0].cells and subject.uri in cells:
                    cells[subject.uri][here] = rows[0].cells[column]
            guess = [row for row in table.rows if row.kind == "chance" and column in row.cells]
            if guess:
                chance[here] = guess[0].cells[column]
    names = {subject.uri: subject.name for subject in subjects(encoders, found)}
    rows = [Row(names[uri], by_column) for uri, by_column in cells.items() if uri in names]
    return Table(
        name=TABLE,
        heading="all protocols",
        corner="encoder",
        columns=tuple(looks),
        rows=(*rows, *([Row(CHANCE, chance, "chance")] if chance else [])),
        looks=looks,
    )


def subjects(encoders: Sequence[str], found: Mapping[str, tuple[Resolved, Results]]) -> list[Subject]:
    """The encoders, in the order of the rows; what is known of the tested films once, or by protocol where they differ."""
    there: dict[str, dict[str, Subject]] = {uri: {} for uri in encoders}
    for title, (_, results) in found.items():
        for subject in results.subjects:
            there.setdefault(subject.uri, {})[title] = subject
    out = []
    for by_title in there.values():
        seen = {title: subject.seen for title, subject in by_title.items() if subject.seen}
        alike = len(set(seen.values())) == 1
        told = next(iter(seen.values())) if alike else "; ".join(f"{title}: {said}" for title, said in seen.items())
        out += [replace(subject, seen=told) for subject in list(by_title.values())[:1]]
    return out
