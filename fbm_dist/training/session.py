"""The values around the loop: what it reads from, who follows it, where it is, and what it came to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from fbm_dist.clip import Clip
from fbm_dist.objectives.objective import Objective
from fbm_dist.training.distributed import World

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

    @property
    def decoder(self) -> str: ...
    @property
    def undecodable(self) -> int: ...
    def agree(self, gather: Callable[[Any], list[Any]], pinned: str | None = None) -> None: ...
    def state(self, consumed: int) -> Any: ...
    def __iter__(self) -> Iterator[Clip]: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Check:
    """Something to be looked at every `every` steps with the full weights: a validation loss, what a probe reads from the features.

    `look(objective, world, touch)`: every rank calls it with the whole objective in eval mode, without gradients; all get the same
    figures. It calls `touch()` now and then, so that a long look is not taken for a hang.
    """

    every: int
    look: Look


class Look(Protocol):
    """See `Check`."""

    def __call__(self, objective: Objective, world: World, touch: Callable[[], None] = ...) -> dict[str, float]: ...


@dataclass
class Position:
    """Where the loop is: the part of its state that moves."""

    step: int = 0
    seconds: float = 0.0  # of training, over all sessions
    skipped: int = 0
    best_step: int | None = None  # of the best validation


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
    stopped_early: bool = False  # validation had not improved for long
    best_step: int | None = None  # of the best validation


class Window:
    """Time since the last logged line: in all, and waiting for data and checkpoints."""

    def __init__(self) -> None:
        self.started = self.lapped = time.monotonic()
        self.waited = self.stalled = 0.0
        self.steps = 0

    def fetch(self, batches: Iterator[Clip], number: int) -> list[Clip]:
        """The next `number` micro-batches, timed."""
        began = time.monotonic()
        clips = [next(batches) for _ in range(number)]
        self.waited += time.monotonic() - began
        self.steps += 1
        return clips

    @contextmanager
    def stalling(self) -> Iterator[None]:
        """Training waits for a checkpoint."""
        began = time.monotonic()
        yield
        self.stalled += time.monotonic() - began

    def figures(self) -> dict[str, float]:
        """Since the last call: seconds, of them waiting for data and for checkpoints, and the number of steps; and seconds since `lap`."""
        now = time.monotonic()
        found = {
            "seconds": max(now - self.started, 1e-9),
            "waited": self.waited,
            "stalled": self.stalled,
            "steps": float(self.steps),
            "session": self.elapsed(),
        }
        self.started, self.waited, self.stalled, self.steps = now, 0.0, 0.0, 0
        return found

    def elapsed(self) -> float:
        """Seconds since the last `lap`."""
        return time.monotonic() - self.lapped

    def lap(self) -> float:
        """The same, and start anew."""
        seconds = self.elapsed()
        self.lapped += seconds
        return seconds
