"""Figures as PNG, without a screen: bars of a table with their intervals, curves; a protocol adds what is its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from data_tools.places import atomic
from fbm_dist.evaluation.report.results import Table

Curve = Sequence[tuple[float, float]]


def canvas(width: float, height: float) -> Figure:
    """An empty figure of this size in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Write the PNG at `path`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as file:
        figure.savefig(file, format="png", dpi=130)
    return path


def bars(axes: Axes, table: Table) -> None:
    """A group of bars a column, one bar a measured row, with intervals (else standard deviations); chance as dotted lines."""
    rows = [row for row in table.rows if row.kind == "measured"]
    width = 0.8 / len(rows)
    for i, row in enumerate(rows):
        for j, column in enumerate(table.columns):
            cell = row.cells.get(column)
            if cell is None:
                continue
            value = cell.value
            spread = cell.spread or 0.0
            low = value.mean - spread if value.low is None else value.low
            high = value.mean + spread if value.high is None else value.high
            error = [[max(0.0, value.mean - low)], [max(0.0, high - value.mean)]]
            place = j + (i - (len(rows) - 1) / 2) * width
            axes.bar(place, value.mean, 0.95 * width, yerr=error, color=f"C{i}", capsize=3)
        axes.bar(0, 0, 0, color=f"C{i}", label=row.name)
    for row in table.rows:
        if row.kind == "chance":
            for j, column in enumerate(table.columns):
                if column in row.cells:
                    axes.plot([j - 0.45, j + 0.45], [row.cells[column].value.mean] * 2, "k:")
            axes.plot([], [], "k:", label="chance")
    axes.set_xticks(range(len(table.columns)), [column.replace(": ", ":\n") for column in table.columns])
    if table.scale == 100:
        axes.set_ylim(0, 1)
    axes.set_ylabel(table.corner.removesuffix(", %"))
    axes.legend(
        fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=4
    )  # below: many bars fill the plot


def curves(axes: Axes, by_name: Mapping[str, Sequence[Curve]], x: str, y: str) -> None:
    """Several curves a name, of one colour."""
    for i, (name, found) in enumerate(by_name.items()):
        for j, curve in enumerate(found):
            at, values = zip(*curve, strict=True) if curve else ((), ())
            axes.plot(at, values, color=f"C{i}", label=name if j == 0 else None)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.legend(fontsize="small")
