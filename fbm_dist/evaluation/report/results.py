"""What an evaluation found: values that become a console table, markdown and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from data_tools.places import write_atomic
from fbm_dist.evaluation.scores import Interval

FINE_TUNED = "fine-tuned"
DAGGER = "†"  # marks figures that were not measured here


@dataclass(frozen=True)
class Score:
    """One cell: accuracy in [0, 1], and its difference to the reference row (None in that row)."""

    accuracy: Interval
    difference: Interval | None


@dataclass(frozen=True)
class Row:
    """One encoder. `clip` and `film`: a score by column, counted by clip and by film."""

    name: str
    uri: str
    model: str | None  # models:/NAME/VERSION
    sha256: str | None
    seen: str
    clip: dict[str, Score] = field(default_factory=dict)
    film: dict[str, Score] = field(default_factory=dict)
    curves: tuple[tuple[tuple[int, float], ...], ...] = ()  # fine-tuning: (step, training accuracy), one a training
    steps_to_90: tuple[int | None, ...] = ()  # fine-tuning: steps to 90 % training accuracy, likewise


@dataclass(frozen=True)
class PaperRow:
    """Figures that the paper reports, on its own data."""

    name: str
    data: str
    accuracy: dict[str, float]  # in percent, by column


@dataclass(frozen=True)
class Results:
    """A whole evaluation.

    Attributes:
        chance: accuracy of always naming the most frequent training class, by column, for clips.
        counts: tested clips, films and groups by column.
        notes: what a reader must know to read the figures.
    """

    protocol: str
    title: str
    label: str
    classes: tuple[str, ...]
    columns: tuple[str, ...]
    chance: dict[str, float]
    counts: dict[str, tuple[int, int, int]]
    rows: tuple[Row, ...]
    paper: tuple[PaperRow, ...]
    notes: tuple[str, ...]
    reference: str  # the row that differences are taken to
    facts: dict[str, Any]  # config, versions, seconds

    def metrics(self, row: Row) -> dict[str, float]:
        """Flat names for MLflow, e.g. linear_probe.motion.clip."""
        out = {}
        for unit, scores in (("clip", row.clip), ("film", row.film)):
            for column, score in scores.items():
                out[f"{metric_name(column)}.{unit}"] = score.accuracy.mean
        return out


def metric_name(column: str) -> str:
    """`probe: motion` -> `linear_probe.motion`; `fine-tuned` -> `fine_tuned`."""
    return column.replace("probe: ", "linear_probe.").replace("-", "_").replace(" ", "_")


def write(results: Results, folder: Path) -> tuple[Path, Path]:
    """results.json and table.md in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    as_json, as_text = folder / "results.json", folder / "table.md"
    for path, text in ((as_json, json.dumps(asdict(results), indent=2) + "\n"), (as_text, markdown(results))):
        write_atomic(path, text.encode())
    return as_json, as_text


def show(results: Results, console: Console) -> None:
    """Print the tables and their notes."""
    for heading, header, body in _tables(results):
        table = Table(title=heading, title_justify="left")
        for i, name in enumerate(header):
            table.add_column(
                name.replace(": ", ":\n"),
                justify="left" if i == 0 else "right",
                overflow="fold",
                min_width=12 if i == 0 else 0,
            )
        for cells, after in zip(body, [*body[1:], [""]], strict=True):
            table.add_row(*cells, end_section=not (DAGGER in cells[0] and DAGGER in after[0]))
        console.print(table)
    for note in _notes(results):
        console.print(f"- {note}", soft_wrap=True, highlight=False, markup=False)


def markdown(results: Results) -> str:
    """The same as GitHub markdown."""
    parts = [f"# {results.title}"]
    for heading, header, body in _tables(results):
        lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
        lines += ["| " + " | ".join(cell.replace("\n", "<br>") for cell in cells) + " |" for cells in body]
        parts.append(f"**{heading}**\n\n" + "\n".join(lines))
    parts.append("\n".join(f"- {note}" for note in _notes(results)))
    return "\n\n".join(parts) + "\n"


def _tables(results: Results) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """(heading, column names, rows of cells) of the table by clip, and of that by film where films have several clips."""
    clips_and_films = [counts[:2] for counts in results.counts.values()]
    units = ["clip", "film"] if any(clips != films for clips, films in clips_and_films) else ["clip"]
    for unit in units:
        header = ["accuracy, %", *results.columns]
        body = [[row.name, *(_cell(getattr(row, unit).get(c)) for c in results.columns)] for row in results.rows]
        if unit == "clip":
            body.insert(0, ["chance (largest class)", *(f"{100 * results.chance[c]:.1f}" for c in results.columns)])
            for paper in results.paper:
                cells = [f"{paper.accuracy[c]:.1f}{DAGGER}" if c in paper.accuracy else "" for c in results.columns]
                body.append([f"{paper.name}{DAGGER}", *cells])
        last = [_count(results.counts[c], unit) for c in results.columns]
        body.append([f"tested {unit}s (groups)", *last])
        yield f"{results.title}, by {unit}", header, body


def _cell(score: Score | None) -> str:
    if score is None:
        return ""
    found = score.accuracy
    text = f"{100 * found.mean:.1f}{_range(found)}"
    if score.difference is not None:
        text += f"\n{100 * score.difference.mean:+.1f}{_range(score.difference)}"
    return text


def _range(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return ""
    return f" [{100 * interval.low:.0f},{100 * interval.high:.0f}]"


def _count(counts: tuple[int, int, int], unit: str) -> str:
    clips, films, groups = counts
    return f"{clips if unit == 'clip' else films} ({groups})"


def _notes(results: Results) -> list[str]:
    single = any(groups == 1 for *_, groups in results.counts.values())
    notes = [
        "Brackets: 95 % interval, bootstrap over groups and seeds"
        + (" (none where one group is tested)" if single else "")
        + f". Second line: difference to {results.reference}, paired by group.",
        *results.notes,
        *(f"{row.name}: {row.seen}." for row in results.rows),
    ]
    for row in results.rows:
        if row.steps_to_90:
            told = ", ".join("never" if steps is None else str(steps) for steps in row.steps_to_90)
            notes.append(f"{row.name}: fine-tuning steps to 90 % training accuracy, each training: {told}.")
    if results.paper:
        notes.append(
            f"{DAGGER} paper, other data: as the paper reports it, on {results.paper[0].data}; not measured here."
        )
    return notes
