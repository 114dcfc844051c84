"""Tables for people: a console's, markdown and HTML, from the same cells; results.json for programs."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter
from rich.console import Console
from rich.table import Table as ConsoleTable
from rich.text import Text

from data_tools.places import write_atomic
from fbm_dist.evaluation.measures.scores import Interval
from fbm_dist.evaluation.report.results import Cell, Look, Results, Row, Table

DAGGER = "†"  # marks figures that were not measured here
BOLD = "**"


def write(results: Results, folder: Path) -> tuple[Path, Path]:
    """results.json and table.md in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    as_json, as_text = folder / "results.json", folder / "table.md"
    for path, text in ((as_json, json.dumps(asdict(results), indent=2) + "\n"), (as_text, markdown(results))):
        write_atomic(path, text.encode())
    return as_json, as_text


def read(path: Path) -> Results:
    """The results that `write` left at `path`.

    Raises:
        ValueError: it is not there, or cannot be read.
    """
    try:
        return TypeAdapter(Results).validate_python(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be read ({' '.join(str(error).split())[:200]}); remove it, and run again"
        ) from None


def show(results: Results, console: Console) -> None:
    """Print the tables and their notes."""
    for table in for_people(results):
        shown = ConsoleTable(title=Text(f"{results.title}, {table.heading}"), title_justify="left")
        for i, name in enumerate([table.corner, *table.columns]):
            title = name.replace(": ", ":\n")
            shown.add_column(
                Text(title), justify="left" if i == 0 else "right", overflow="fold", min_width=0 if i else 12
            )
        body = list(lines(table))
        for cells, after in zip(body, [*body[1:], [""]], strict=True):
            together = DAGGER in cells[0] and DAGGER in after[0]
            # a name may hold what rich takes for markup
            shown.add_row(*(Text(cell.replace(BOLD, "")) for cell in cells), end_section=not together)
        console.print(shown)
    for note in notes(results):
        console.print(f"- {note}", soft_wrap=True, highlight=False, markup=False)


def markdown(results: Results) -> str:
    """The same as GitHub markdown."""
    parts = [f"# {results.title}"]
    parts += [
        f"**{table.heading[:1].upper()}{table.heading[1:]}**\n\n{markdown_table(table)}"
        for table in for_people(results)
    ]
    parts.append("\n".join(f"- {note}" for note in notes(results)))
    return "\n\n".join(parts) + "\n"


def for_people(results: Results) -> list[Table]:
    """The tables that are for people."""
    return [table for table in results.tables if table.shown]


def markdown_table(table: Table) -> str:
    """One table, the best measured figure of each column in bold."""
    head, *body = [[table.corner, *table.columns], *lines(table)]

    def line(cells: list[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", "<br>") for cell in cells) + " |"

    return "\n".join([line(head), "|" + "---|" * len(head), *map(line, body)])


def html_table(table: Table) -> str:
    """One table as HTML, likewise."""

    def cell(tag: str, text: str) -> str:
        bold = text.startswith(BOLD)
        told = html.escape(text.replace(BOLD, "")).replace("\n", "<br>")
        return f"<{tag}>{f'<b>{told}</b>' if bold else told}</{tag}>"

    head = "".join(cell("th", name) for name in (table.corner, *table.columns))
    body = "\n".join(f"<tr>{''.join(cell('td', text) for text in cells)}</tr>" for cells in lines(table))
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def lines(table: Table) -> Iterator[list[str]]:
    """Rows of cells as text, the row's name first; the best measured figures of each column stand in **."""
    best = {column: _best(table, column) for column in table.columns}
    for row in table.rows:
        mark = DAGGER if row.kind == "paper" else ""
        found = [f"{row.name}{mark}"]
        for column in table.columns:
            cell = row.cells.get(column)
            text = "" if cell is None else f"{_cell(cell, table.look(column))}{mark}"
            found.append(f"{BOLD}{text}{BOLD}" if text and any(row is one for one in best[column]) else text)
        yield found
    if table.footer:
        yield [table.footer_name, *(table.footer.get(column, "") for column in table.columns)]


def notes(results: Results) -> list[str]:
    """What must be known to read the tables."""
    papers = any(row.kind == "paper" for table in results.tables for row in table.rows)
    seen = [f"{subject.name}: {subject.seen}." for subject in results.subjects if subject.seen]
    told = f"{DAGGER} as the paper reports it, on its own data; not measured here."
    return [*results.notes, *seen, *([told] if papers else [])]


def _best(table: Table, column: str) -> list[Row]:
    """The measured rows with the best figure, where several have one."""
    rows = [row for row in table.rows if row.kind == "measured" and row.ranked and column in row.cells]
    found = [row for row in rows if math.isfinite(row.cells[column].value.mean)]
    better = table.look(column).better
    if len(found) < 2 or better == "neither":
        return []
    best = (max if better == "higher" else min)(row.cells[column].value.mean for row in found)
    return [row for row in found if row.cells[column].value.mean == best]


def _cell(cell: Cell, look: Look) -> str:
    text = f"{_number(cell.value.mean, look)}{_bounds(cell.value, look)}"
    if cell.spread is not None:
        text += f" ± {_number(cell.spread, look)}"
    if cell.mark:
        text += f" {cell.mark}"
    if cell.difference is not None:
        text += f"\n{_number(cell.difference.mean, look, '+')}{_bounds(cell.difference, look)}"
    return text


def _number(value: float, look: Look, sign: str = "") -> str:
    return f"{look.scale * value:{sign}.{look.digits}f}"


def _bounds(interval: Interval, look: Look) -> str:
    if interval.low is None or interval.high is None:
        return ""
    digits = max(0, look.digits - 1)
    return f" [{look.scale * interval.low:.{digits}f},{look.scale * interval.high:.{digits}f}]"
