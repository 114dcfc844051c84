"""The values around the loop: what it reads from, who follows it, where it is, and what it came to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from fbm_dist.clip import Clip

Report = Callable[[dict[str, float]], None]


@runtime_checkable  # the tests check annotations
class Record(Protocol):
    """Who follows a run on rank 0: version.json and MLflow in `run.pretrain`; nobody in a test."""

    def opened(self, facts: Mapping[str, str]) -> None:
        """The data are open; `facts` names their digest, decoder and number."""

    def wake(self) -> None:
        """There is a new line or picture in the run folder."""


@runtime_checkable  # the tests check annotations
class Stream(Protocol):
    """What the trainer asks of a loader (fbm_dist/data/loader.py): endless micro-batches in the plan's order."""

    num_clips: int
    digest: str
    decoder: str

    @property
    def undecodable(self) -> int: ...
    def state(self, consumed: int) -> Any: ...
    def __iter__(self) -> Iterator[Clip]: ...
    def close(self) -> None: ...


@dataclass
class Position:
    """Where the loop is: the part of its state that moves."""

    step: int = 0
    seconds: float = 0.0  # of training, over all sessions
    skipped: int = 0
    skipped_in_a_row: int = 0


@dataclass(frozen=True)
class Summary:
    """What a run came to. `metrics`: the last logged line; `interrupted`: stopped by a signal before its end."""

    folder: Path
    steps: int
    clips: int
    seconds: float
    skipped: int
    metrics: dict[str, float]
    interrupted: bool
    data_digest: str
    encoder: Path | None = None
    model_uri: str | None = None
    tracking_run: str | None = None
    pictures: tuple[Path, ...] = ()


class Window:
    """Time since the last logged line: in all, and waiting for data."""

    def __init__(self) -> None:
        self.started = self.lapped = time.monotonic()
        self.waited = 0.0
        self.steps = 0

    def fetch(self, batches: Iterator[Clip], number: int) -> list[Clip]:
        """The next `number` micro-batches, timed."""
        began = time.monotonic()
        clips = [next(batches) for _ in range(number)]
        self.waited += time.monotonic() - began
        self.steps += 1
        return clips

    def figures(self) -> tuple[float, float, int]:
        """(seconds waited, seconds, steps) since the last call."""
        now = time.monotonic()
        found = (self.waited, now - self.started, self.steps)
        self.started, self.waited, self.steps = now, 0.0, 0
        return found

    def elapsed(self) -> float:
        """Seconds since the last `lap`."""
        return time.monotonic() - self.lapped

    def lap(self) -> float:
        """The same, and start anew."""
        seconds = self.elapsed()
        self.lapped += seconds
        return seconds
