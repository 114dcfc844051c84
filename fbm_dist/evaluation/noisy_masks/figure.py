"""The plots of the study: accuracy by the masks of pretraining, by their quality, and by the amount of data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from matplotlib.axes import Axes

from fbm_dist.evaluation.report.figure import bars, canvas, save
from fbm_dist.evaluation.report.results import Results, Row, Table

FILMS = "films"  # the column that says how many were pretrained on


def draw(results: Results, path: Path) -> Path:
    """Write figure.png: bars by variant; accuracy against the masks' IoU; accuracy against films."""
    table = results.table("clip")
    probes = tuple(column for column in table.columns if column.startswith("probe"))
    amounts = [table for table in results.tables if table.name == "amount"]
    quality: dict[str, float] = results.details["mask_iou"]
    panels = 1 + bool(quality) + len(amounts)
    figure = canvas(4 + 5 * panels, 5)
    axes = figure.subplots(1, panels, squeeze=False, width_ratios=[2, *[1] * (panels - 1)])[0]
    bars(axes[0], replace(table, columns=probes))
    rows = {row.name: row for row in table.rows if row.kind == "measured"}
    if quality:
        points = [
            (value, rows[name]) for name, value in sorted(quality.items(), key=lambda item: item[1]) if name in rows
        ]
        _lines(axes[1], table, probes, points)
        axes[1].set_xlabel("IoU of the masks with the true ones")
    for amount in amounts:
        _lines(
            axes[-1], table, probes, [(row.cells[FILMS].value.mean, row) for row in amount.rows if FILMS in row.cells]
        )
        axes[-1].set_xscale("log", base=2)
        axes[-1].set_xlabel("films of pretraining, as many steps each")
    return save(figure, path)


def _lines(axes: Axes, table: Table, columns: tuple[str, ...], points: list[tuple[float, Row]]) -> None:
    """A line a column, with intervals; what no pretraining gives as a dotted line of the same colour."""
    baseline = next(row for row in table.rows if row.kind == "measured")
    for i, column in enumerate(columns):
        values = [row.cells[column].value for _, row in points]
        low = [value.mean - (value.mean if value.low is None else value.low) for value in values]
        high = [(value.mean if value.high is None else value.high) - value.mean for value in values]
        at = [x for x, _ in points]
        name = column.removeprefix("probe: ")
        axes.errorbar(at, [v.mean for v in values], yerr=[low, high], fmt="o-", color=f"C{i}", label=name, capsize=3)
        axes.axhline(baseline.cells[column].value.mean, color=f"C{i}", linestyle=":")
    axes.set_ylim(0, 1)
    axes.set_ylabel("accuracy (dotted: no pretraining)")
    axes.legend(fontsize="small")
