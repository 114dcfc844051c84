"""What was measured, as tables: means over sequences (DAVIS), pooled over all frames (Pathak et al.), and by data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from fbm_dist.evaluation.measures.scores import LEVEL, RESAMPLES, Interval, Right, accuracy, difference
from fbm_dist.evaluation.report.results import Cell, Row, Table
from fbm_dist.evaluation.segmentation.measuring import Measured
from fbm_dist.evaluation.segmentation.metrics import Frames, ratios, statistics

# Pathak et al. 2017, the table in section 5.2: percent, on DAVIS, FBMS and VSB together
PAPER = {"uNLC": (13.1, 15.4, 45.8), "ConvNet": (24.8, 29.9, 59.3)}
POOLED = ("IoU", "precision", "recall")
MEANS: dict[str, Callable[[Frames], float]] = {
    "J mean": lambda found: float(found.iou.mean()),
    "precision": lambda found: float(found.precision.mean()),
    "recall": lambda found: float(found.recall.mean()),
    "J recall": lambda found: statistics(found.iou).recall,
    "F mean": lambda found: float(found.boundary.mean()),
}


def by_sequence(measured: Sequence[Measured], reference: dict[str, str]) -> Table:
    """Each figure of a sequence first, then the mean over sequences; intervals by bootstrap over sequences (and repetitions).

    Args:
        reference: row -> the row that its J is compared with, over the same sequences.
    """
    rows = []
    for name in _names(measured):
        cells = {column: Cell(accuracy(_values(measured, name, figure))) for column, figure in MEANS.items()}
        if name in reference:
            ours, theirs = (_values(measured, row, MEANS["J mean"]) for row in (name, reference[name]))
            cells["J mean"] = Cell(cells["J mean"].value, difference(ours, theirs))
        rows.append(Row(name, cells))
    frames = sum(len(one.share) for one in _first(measured))
    heading = f"mean over {len(measured)} sequences ({frames} annotated frames)"
    return Table("sequences", heading, "method, %", tuple(MEANS), tuple(rows))


def pooled(measured: Sequence[Measured], kept: tuple[float, float]) -> Table:
    """One confusion matrix of all frames, as the paper has it; and of those alone whose predicted foreground is in `kept`."""
    columns: dict[str, tuple[float, float] | None] = {"all frames": None, f"{limits(kept)} predicted": kept}
    rows = []
    for name in _names(measured):
        cells: dict[str, Cell] = {}
        for what, span in columns.items():
            counts = np.array([[one.pooled(span) for one in whole.found[name]] for whole in measured]).swapaxes(0, 1)
            for column, interval in zip(POOLED, _ratios(counts), strict=True):
                if interval is not None:
                    cells[f"{what}: {column}"] = Cell(interval)
        rows.append(Row(name, cells))
    for name, figures in PAPER.items():
        told = {f"{what}: {c}": Cell.of(v / 100) for what in columns for c, v in zip(POOLED, figures, strict=True)}
        rows.append(Row(f"paper: {name}", told, "paper"))
    names = tuple(f"{what}: {column}" for what in columns for column in POOLED)
    return Table("pooled", "pooled over all frames", "method, %", names, tuple(rows))


def shares_kept(measured: Sequence[Measured], kept: tuple[float, float]) -> dict[str, float]:
    """By row: the share of frames whose predicted foreground is in `kept`."""
    found = {name: [one for whole in measured for one in whole.found[name]] for name in _names(measured)}
    return {name: float(np.concatenate([one.kept(*kept) for one in own]).mean()) for name, own in found.items()}


def limits(kept: tuple[float, float]) -> str:
    """(0.02, 0.7) -> 2-70 %."""
    return f"{100 * kept[0]:g}-{100 * kept[1]:g} %"


def by_data(measured: Sequence[Measured]) -> Table:
    """J, mean over the sequences of each data set."""
    names = list(dict.fromkeys(one.data for one in measured))
    own = {data: [one for one in measured if one.data == data] for data in names}
    rows = tuple(
        Row(row, {data: Cell(accuracy(_values(own[data], row, MEANS["J mean"]))) for data in names})
        for row in _names(measured)
    )
    footer = {data: str(len(own[data])) for data in names}
    return Table("data", "J by data set", "J mean, %", tuple(names), rows, footer_name="sequences", footer=footer)


def details(measured: Sequence[Measured]) -> dict[str, Any]:
    """Every sequence's figures by row, means over repetitions: J and F with DAVIS's recall and decay, precision, recall, frames."""
    return {
        f"{whole.data}/{whole.name}": {row: _details(found) for row, found in whole.found.items()} for whole in measured
    }


def _details(found: list[Frames]) -> dict[str, float | int]:
    out: dict[str, float | int] = {"frames": len(found[0].share)}
    for name, values in (("J", [one.iou for one in found]), ("F", [one.boundary for one in found])):
        told = [statistics(own) for own in values]
        for figure in ("mean", "recall", "decay"):
            out[f"{name} {figure}"] = float(np.mean([getattr(one, figure) for one in told]))
    out["precision"] = float(np.mean([one.precision.mean() for one in found]))
    out["recall"] = float(np.mean([one.recall.mean() for one in found]))
    return out


def _values(measured: Sequence[Measured], row: str, figure: Callable[[Frames], float]) -> Right:
    """(repetitions, sequences) of a figure; each sequence is a group of its own."""
    value = np.array([[figure(one) for one in whole.found[row]] for whole in measured]).T
    return Right(value, np.arange(len(measured)))


def _ratios(counts: Int[np.ndarray, "r s 3"]) -> list[Interval | None]:
    """IoU, precision and recall with intervals: sequences are drawn with replacement and pooled again; so are repetitions.

    A repetition is pooled by itself, then the mean is taken. None: nothing to divide by.
    """
    repetitions, sequences = counts.shape[:2]
    random = np.random.default_rng(0)
    drawn = random.multinomial(sequences, np.full(sequences, 1 / sequences), size=RESAMPLES)
    again = random.multinomial(repetitions, np.full(repetitions, 1 / repetitions), size=RESAMPLES)
    resampled = ratios(np.einsum("ns,rsk->nrk", drawn, counts))
    means = np.einsum("nr,nrk->nk", again, resampled) / repetitions
    out: list[Interval | None] = []
    for value, resampled_value in zip(ratios(counts.sum(1)).mean(0), means.T, strict=True):
        if np.isnan(value):
            out.append(None)
        elif sequences < 2:
            out.append(Interval(float(value), None, None))
        else:  # a draw in which there is nothing to divide by says nothing
            low, high = np.nanquantile(resampled_value, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
            out.append(Interval(float(value), float(low), float(high)))
    return out


def _names(measured: Sequence[Measured]) -> list[str]:
    return list(measured[0].found)


def _first(measured: Sequence[Measured]) -> list[Frames]:
    """Of each sequence what its first row was measured on: all rows have the same frames."""
    return [next(iter(one.found.values()))[0] for one in measured]
