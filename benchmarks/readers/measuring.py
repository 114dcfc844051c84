"""How readers are compared: turn by turn in one process, by the CPU time that they and their worker processes use."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import psutil
from rich.console import Console
from rich.markup import escape
from rich.table import Table

# Given an amount, yields how much was read so far: 0 once it is warm (processes run, read-ahead is full), then up to the amount or more.
Run = Callable[[float], Iterator[float]]
Decode = Callable[[bytes, int, int, int], np.ndarray]  # mp4, first frame, frames, side -> uint8 (t, side, side, 3)


@dataclass(frozen=True)
class Figure:
    """Medians over the rounds."""

    per_second: float
    per_cpu_second: float
    least: float  # per CPU-second, of any round
    most: float


def interleaved(runs: Mapping[str, Run], amount: float, rounds: int) -> dict[str, Figure]:
    """Every reader once a round, forwards and backwards by turns, so that a machine that slows down slows all of them."""
    passes: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for number in range(rounds):
        for name in list(runs)[:: -1 if number % 2 else 1]:
            passes[name].append(_once(runs[name], amount))
    return {name: _figure(found) for name, found in passes.items()}


def _once(run: Run, amount: float) -> tuple[float, float]:
    """Amount per second and per CPU-second. The start and the end of the reader's processes are not counted."""
    with closing(run(amount)) as counts:  # type: ignore[type-var]  # generators have close()
        next(counts)
        start, used, done = time.perf_counter(), cpu_seconds(), 0.0
        while done < amount:
            done = next(counts)
        return done / (time.perf_counter() - start), done / (cpu_seconds() - used)


def _figure(passes: list[tuple[float, float]]) -> Figure:
    per_second, per_cpu_second = zip(*passes, strict=True)
    median = statistics.median
    return Figure(median(per_second), median(per_cpu_second), min(per_cpu_second), max(per_cpu_second))


def cpu_seconds() -> float:
    """User and system time of this process and of its workers, which are alive while it is asked."""
    workers = psutil.Process().children(recursive=True)
    return time.process_time() + sum(sum(worker.cpu_times()[:2]) for worker in workers)


def print_figures(title: str, unit: str, figures: Mapping[str, Figure], notes: Mapping[str, str] | None = None) -> None:
    """One table for people."""
    rows = [
        (name, f"{f.per_second:,.0f}", f"{f.per_cpu_second:,.0f}", f"{f.least:,.0f} - {f.most:,.0f}", (notes or {}).get(name, ""))
        for name, f in figures.items()
    ]  # fmt: skip
    rows += [(name, "", "", "", note) for name, note in (notes or {}).items() if name not in figures]
    print_table(title, ("reader", f"{unit}/s", f"{unit} per CPU-second", "least - most", "note"), rows)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Iterable[str]]) -> None:
    """Numbers stand right, the first column and a note left."""
    table = Table()
    for number, name in enumerate(columns):
        table.add_column(name, justify="left" if number == 0 or name == "note" else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    console = Console(width=None if Console().is_terminal else 140)
    console.print(title)
    console.print(table)
