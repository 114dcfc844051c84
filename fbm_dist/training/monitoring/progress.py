"""What a person sees while a run goes: one rich bar on a terminal, plain lines elsewhere; rank 0 only."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from io import TextIOBase
from types import TracebackType

from rich.console import Console as Terminal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

LOOKS = ("validation/", "probe/")
HIDDEN = ("epoch", "seconds", "undecodable", "skipped", "clips_per_second", "data_wait", "checkpoint_stall", "system/")


class Console:
    """Shows steps `first` to `total`. On a terminal a bar with loss terms, clips/s, data-wait share and time left."""

    def __init__(self, total: int, first: int, *, shown: bool = True, terminal: TextIOBase | None = None) -> None:
        self.total = total
        self.first = first
        self.started = time.monotonic()
        self.shown = shown
        self._bar: Progress | None = None
        if shown and (terminal or sys.stdout).isatty():
            self._bar = Progress(
                MofNCompleteColumn(),
                BarColumn(bar_width=20),
                TimeRemainingColumn(compact=True),
                TextColumn("{task.fields[figures]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
                console=Terminal(file=terminal),  # type: ignore[arg-type]
                expand=True,
            )
            self._task = self._bar.add_task("", total=total, completed=first, figures="")

    def __enter__(self) -> Console:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def advance(self, step: int) -> None:
        """`step` steps are done."""
        if self._bar:
            self._bar.update(self._task, completed=step)

    def show(self, step: int, metrics: Mapping[str, float]) -> None:
        """The figures of a logged step."""
        if self._bar:
            self._bar.update(self._task, completed=step, figures=figures(metrics, brief=True))
            looked = [f"{name} {value:.4g}" for name, value in metrics.items() if name.startswith(LOOKS)]
            if looked:
                self._bar.console.print(f"step {step}: {'  '.join(looked)}", highlight=False)
        elif self.shown:
            each = (time.monotonic() - self.started) / max(1, step - self.first)
            left = duration(each * (self.total - step))
            with suppress(OSError):  # nobody reads any more: no reason to stop
                print(f"step {step}/{self.total}  {figures(metrics)}  {left} left", flush=True)


def figures(metrics: Mapping[str, float], *, brief: bool = False) -> str:
    """Loss terms, then speed: `loss 0.412 rec 0.3  lr 1.0e-04  35.1 clips/s  data 3%`.

    Args:
        brief: speed first and no looks, for a place where what is too long is cut.
    """
    rates = [f"{name} {value:.1e}" for name, value in metrics.items() if name.split("/")[-1] == "lr"]
    hidden = (*HIDDEN, *LOOKS) if brief else HIDDEN
    shown = {n: v for n, v in metrics.items() if not n.startswith(hidden) and n.split("/")[-1] != "lr"}
    terms = [" ".join(f"{name} {value:.4g}" for name, value in shown.items()), " ".join(rates)]
    speed = [f"{metrics['clips_per_second']:.1f} clips/s  data {metrics['data_wait']:.0%}"]
    if metrics.get("skipped"):
        speed.append(f"skipped {metrics['skipped']:.0f}")
    return "  ".join([*speed, *terms] if brief else [*terms, *speed])


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    if not math.isfinite(seconds):
        return "?"
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
