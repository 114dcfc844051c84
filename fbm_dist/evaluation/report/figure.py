"""The figure of an evaluation: accuracies with their intervals, and the training curves of fine-tuning (FBM, Figure 3)."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fbm_dist.evaluation.results import Results


def draw(results: Results, path: Path) -> Path:
    """Write the PNG at `path`."""
    curves = any(row.curves for row in results.rows)
    figure = Figure(figsize=(12 if curves else 7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2 if curves else 1, squeeze=False)[0]
    _bars(axes[0], results)
    if curves:
        _curves(axes[1], results)
    temporary = path.with_name(f".{path.name}")
    figure.savefig(temporary, format="png", dpi=130)
    temporary.replace(path)
    return path


def _bars(axes: Axes, results: Results) -> None:
    width = 0.8 / len(results.rows)
    for i, row in enumerate(results.rows):
        for j, column in enumerate(results.columns):
            score = row.clip.get(column)
            if score is None:
                continue
            found = score.accuracy
            low, high = (found.mean if bound is None else bound for bound in (found.low, found.high))
            error = [[max(0.0, found.mean - low)], [max(0.0, high - found.mean)]]
            place = j + (i - (len(results.rows) - 1) / 2) * width
            name = row.name if j == 0 else None
            axes.bar(place, found.mean, 0.95 * width, yerr=error, color=f"C{i}", label=name, capsize=3)
    for j, column in enumerate(results.columns):
        chance = results.chance[column]
        axes.plot([j - 0.45, j + 0.45], [chance] * 2, "k:", label="chance" if j == 0 else None)
    axes.set_xticks(range(len(results.columns)), [column.replace(": ", ":\n") for column in results.columns])
    axes.set_ylim(0, 1)
    axes.set_ylabel(f"accuracy by clip, {results.label}")
    axes.legend(fontsize="small")


def _curves(axes: Axes, results: Results) -> None:
    for i, row in enumerate(results.rows):
        for j, curve in enumerate(row.curves):
            steps, values = zip(*curve, strict=True) if curve else ((), ())
            axes.plot(steps, values, color=f"C{i}", label=row.name if j == 0 else None)
    axes.axhline(0.9, color="k", linestyle=":", linewidth=0.8)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("fine-tuning step")
    axes.set_ylabel("accuracy on training batches")
    axes.legend(fontsize="small")
