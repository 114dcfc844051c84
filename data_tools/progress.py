"""Progress on the console: a bar with ETA and rates on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Protocol, runtime_checkable


@runtime_checkable  # the tests check types at run time
class Progress(Protocol):
    """What a long job tells while it runs."""

    def stage(self, name: str, total: int, unit: str) -> None:
        """A stage of `total` things begins."""

    def advance(self, things: int = 0, frames: int = 0) -> None:
        """So many more things are done, so many more frames have passed."""

    def judged(self, kept: int, clips: int) -> None:
        """The pruning rules would keep `kept` of `clips` more clips."""

    def note(self, text: str) -> None:
        """Something worth a line."""


class Silent:
    """Says nothing."""

    def stage(self, name: str, total: int, unit: str) -> None:
        """See `Progress`."""

    def advance(self, things: int = 0, frames: int = 0) -> None:
        """See `Progress`."""

    def judged(self, kept: int, clips: int) -> None:
        """See `Progress`."""

    def note(self, text: str) -> None:
        """See `Progress`."""


class Console:
    """A rich bar where stderr is a terminal, else a line every `every` seconds and at each stage's end."""

    def __init__(self, every: float = 10.0) -> None:
        self._every = every
        self._bar: Any = None
        self._task: Any = None
        self._name, self._unit, self._total = "", "", 0
        self._things = self._frames = self._kept = self._clips = 0
        self._begun = self._told = time.monotonic()

    def __enter__(self) -> Console:
        if sys.stderr.isatty():
            from rich.console import Console as RichConsole
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[rates]}"),
                console=RichConsole(stderr=True),
            )
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def stage(self, name: str, total: int, unit: str) -> None:
        """See `Progress`."""
        self._name, self._unit, self._total = name, unit, total
        self._things = self._frames = self._kept = self._clips = 0
        self._begun = self._told = time.monotonic()
        if self._bar is not None:
            self._task = self._bar.add_task(name, total=total, rates="")

    def advance(self, things: int = 0, frames: int = 0) -> None:
        """See `Progress`."""
        self._things += things
        self._frames += frames
        if self._bar is not None:
            self._bar.update(self._task, completed=self._things, rates=self._rates())
            return
        now = time.monotonic()
        finished = things > 0 and self._things == self._total
        if finished or now - self._told >= self._every:
            self._told = now
            passed = now - self._begun
            left = passed / self._things * (self._total - self._things) if self._things else 0.0
            eta = f", {left:.0f} s left" if self._things and not finished else ""
            line = f"{self._name}: {self._things}/{self._total} {self._unit}, {self._rates()}, {passed:.0f} s{eta}"
            print(line, file=sys.stderr, flush=True)

    def judged(self, kept: int, clips: int) -> None:
        """See `Progress`."""
        self._kept += kept
        self._clips += clips

    def note(self, text: str) -> None:
        """See `Progress`."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def _rates(self) -> str:
        passed = max(time.monotonic() - self._begun, 1e-3)
        rates = [f"{self._things / passed:.1f} {self._unit}/s"]
        if self._frames:
            rates.append(f"{self._frames / passed:.0f} frames/s")
        if self._clips:
            rates.append(f"{self._kept / self._clips:.0%} of clips kept")
        return ", ".join(rates)
