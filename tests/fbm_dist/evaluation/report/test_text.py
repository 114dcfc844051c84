"""Tables as text: what stands in bold, marks, columns told in their own way; and results that come back as they were."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from fbm_dist.evaluation.measures.scores import Interval
from fbm_dist.evaluation.report.results import Cell, Look, Results, Row, Subject, Table
from fbm_dist.evaluation.report.text import html_table, markdown, markdown_table, read, show, write

LEAK = Look(better="lower", scale=1.0, digits=3)
TABLE = Table(
    name="clip",
    heading="by clip",
    corner="%",
    columns=("right", "leak"),
    rows=(
        Row("one", {"right": Cell(Interval(0.5, 0.4, 0.6), mark="◆"), "leak": Cell.of(0.25)}),
        Row("two", {"right": Cell.of(0.75), "leak": Cell.of(0.5)}),
        Row("both", {"right": Cell.of(0.875), "leak": Cell.of(0.125)}, ranked=False),
        Row("chance", {"right": Cell.of(0.9)}, "chance"),
    ),
    looks={"leak": LEAK},
)


def test_bold_goes_by_the_column_and_passes_over_what_is_not_ranked() -> None:
    assert markdown_table(TABLE).splitlines()[2:] == [
        "| one | 50.0 [40,60] ◆ | **0.250** |",
        "| two | **75.0** | 0.500 |",
        "| both | 87.5 | 0.125 |",
        "| chance | 90.0 |  |",
    ]
    assert "<td><b>75.0</b></td>" in html_table(TABLE)


def test_equal_figures_are_bold_alike_and_what_is_no_number_is_not() -> None:
    figures = {"a": float("nan"), "b": 0.5, "c": 0.5, "d": 0.25}
    rows = tuple(Row(name, {"x": Cell.of(value)}) for name, value in figures.items())
    shown = markdown_table(Table("t", "t", "%", ("x",), rows)).splitlines()[2:]
    assert shown == ["| a | nan |", "| b | **50.0** |", "| c | **50.0** |", "| d | 25.0 |"]


def test_what_is_for_programs_is_not_shown_and_comes_back(tmp_path: Path) -> None:
    hidden = Table("more", "hidden", "%", ("right",), (Row("one", {"right": Cell.of(0.5, spread=0.1)}),), shown=False)
    results = Results("probes", "t", (Subject("one", "random"),), "one", (TABLE, hidden), ("a note.",), {"x": [1]}, {})
    assert "hidden" not in markdown(results).lower()
    assert results.metrics("one") == {"right.clip": 0.5, "leak.clip": 0.25, "right.more": 0.5}
    path, _ = write(results, tmp_path)
    assert read(path) == results


def test_names_are_shown_as_they_are() -> None:
    """A folder may be called what rich takes for markup, or hold a bar, which ends a cell of markdown."""
    row = Row("runs/[/x]/[bold]run|1", {"right": Cell.of(0.5)})
    table = Table("clip", "by clip", "%", ("right",), (row,))
    results = Results("probes", "of [/data]", (Subject(row.name, "random"),), row.name, (table,))
    console = Console(width=200, record=True, file=io.StringIO())
    show(results, console)
    printed = console.export_text()
    assert "runs/[/x]/[bold]run|1" in printed
    assert "of [/data], by clip" in printed
    assert markdown_table(table).splitlines()[2] == "| runs/[/x]/[bold]run\\|1 | 50.0 |"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"protocol": "x"}', '{"protocol": 1}'])
def test_results_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    path = tmp_path / "results.json"
    with pytest.raises(ValueError, match=r"results\.json cannot be read"):
        read(path)
    path.write_text(text)
    with pytest.raises(ValueError, match=r"results\.json cannot be read") as caught:
        read(path)
    assert "\n" not in str(caught.value)
