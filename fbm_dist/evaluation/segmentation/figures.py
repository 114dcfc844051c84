"""Figures: J of every sequence, and a sheet of frames with the truth and what each method finds (Figures 6 and 7 of Pathak et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8

from fbm_dist.evaluation.report.figure import canvas, save
from fbm_dist.evaluation.segmentation.measuring import Look, Measured

TRUTH, FOUND = (0, 200, 80), (230, 40, 40)  # RGB
COVER = 0.55  # how much of the colour there is over the picture


def draw_sequences(measured: Sequence[Measured], path: Path) -> Path:
    """A group of bars a sequence: J of each row, mean over its frames and repetitions."""
    rows = list(measured[0].found)
    figure = canvas(max(7.0, 1.5 + 0.14 * len(measured) * (len(rows) + 1)), 4.5)
    axes = figure.subplots()
    width = 0.85 / len(rows)
    for i, row in enumerate(rows):
        heights = [np.mean([one.iou.mean() for one in whole.found[row]]) for whole in measured]
        places = np.arange(len(measured)) + (i - (len(rows) - 1) / 2) * width
        axes.bar(places, heights, 0.95 * width, color=f"C{i}", label=f"{row} (mean {np.mean(heights):.2f})")
    several = len({one.data for one in measured}) > 1
    names = [f"{one.data}/{one.name}" if several else one.name for one in measured]
    axes.set_xticks(range(len(measured)), names, rotation=45, ha="right", fontsize="small")
    axes.set_ylim(0, 1)
    axes.set_xlim(-0.6, len(measured) - 0.4)
    axes.set_ylabel("J (intersection over union)")
    figure.legend(loc="outside upper center", ncols=min(4, len(rows)), fontsize="small")
    return save(figure, path)


def draw_sheet(measured: Sequence[Measured], number: int, path: Path) -> Path:
    """A row a sequence, `number` of them evenly from the list: frame, truth, and each method's mask over the frame."""
    shown = [
        measured[i]
        for i in np.unique(np.linspace(0, len(measured) - 1, min(number, len(measured))).round().astype(int))
    ]
    rows = list(measured[0].found)
    heights = [whole.look.frame.shape[0] / whole.look.frame.shape[1] for whole in shown]
    columns = 2 + len(rows)
    figure = canvas(2.0 * columns, 2.0 * sum(heights) + 0.6)
    grid = figure.subplots(len(shown), columns, squeeze=False, gridspec_kw={"height_ratios": heights})
    for line, whole in zip(grid, shown, strict=True):
        for axes, tile in zip(line, tiles(whole.look, rows), strict=True):
            axes.imshow(tile)
            axes.set_xticks([])
            axes.set_yticks([])
        line[0].set_ylabel(whole.name, fontsize="small")
    for axes, title in zip(grid[0], ("frame", "truth", *rows), strict=True):
        axes.set_title(title.replace(", ", ",\n"), fontsize="small")
    return save(figure, path)


def tiles(look: Look, rows: Sequence[str]) -> list[UInt8[np.ndarray, "h w 3"]]:
    """The frame, the truth over it, and each row's mask over it."""
    return [
        look.frame,
        overlay(look.frame, look.truth, TRUTH),
        *(overlay(look.frame, look.found[r], FOUND) for r in rows),
    ]


def overlay(
    frame: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"], colour: tuple[int, int, int]
) -> UInt8[np.ndarray, "h w 3"]:
    """The frame, coloured where the mask is."""
    out = frame.astype(np.float32)
    out[mask] += COVER * (np.array(colour, np.float32) - out[mask])
    return out.round().astype(np.uint8)
