"""boxes.csv: boxes around what moves, as the action data sets have them; filled, they are a film's true masks.

Columns `path, frame, x0, y0, x1, y1`, a row per box; others (object, label) are passed over. Where the boxes come as tubes, as in
the pickled dictionaries of UCF101-24 and JHMDB (`gttubes[video][label]`: arrays of frame, x1, y1, x2, y2, frames counted from 1),
a row of a tube becomes `{video}.avi, {frame - 1}, {x1}, {y1}, {x2}, {y2}`. Pickles are not read here: they can run any program.
UCF-101's boxes in the forms that are none are read as distributed: layouts/ucf101_boxes.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from data_tools.places import ATTEMPTS, Place
from data_tools.sources.entries import spelt
from data_tools.sources.tables import on_disk, read_cells

COLUMNS = ("path", "frame", "x0", "y0", "x1", "y1")


class Box(NamedTuple):
    """A box in pixels of the film's own frame as shown (upright, square pixels): from (x0, y0) up to, not including, (x1, y1)."""

    frame: int  # among the film's own frames, from 0
    x0: float
    y0: float
    x1: float
    y1: float


def read_boxes(there: Place, attempts: int = ATTEMPTS) -> dict[str, tuple[Box, ...]]:
    """Read a boxes.csv: film (as `spelt`, relative to the file) -> its boxes in order, each once.

    Args:
        there: the file.
        attempts: of fetching a remote one.
    Raises:
        ValueError: not a CSV with these columns, or a row that is no box; the text names the line.
    """
    found: dict[str, list[Box]] = {}
    shown = spelt(there)
    with on_disk(there, attempts) as path:
        for number, (name, *cells) in read_cells(path, shown, COLUMNS):
            if not name and not any(cells):
                continue
            try:
                found.setdefault(spelt(_named(name)), []).append(_box(cells))
            except ValueError as error:
                raise ValueError(f"{shown}, line {number}: {error}") from None
    return {name: tuple(sorted(set(boxes))) for name, boxes in found.items()}


def _named(name: str) -> str:
    if not name:
        raise ValueError("no path")
    return name


def _box(cells: Sequence[str]) -> Box:
    frame, *corners = cells
    if not frame.isdecimal():
        raise ValueError(f"frame {frame!r} is no index of a frame, from 0")
    try:
        x0, y0, x1, y1 = (float(corner) for corner in corners)
    except ValueError:
        raise ValueError(f"corners {', '.join(corners)!r} are no numbers of pixels") from None
    if not all(map(math.isfinite, (x0, y0, x1, y1))) or x1 <= x0 or y1 <= y0:
        raise ValueError(f"corners {', '.join(corners)!r} are no box; expected x0 < x1 and y0 < y1")
    return Box(int(frame), x0, y0, x1, y1)
