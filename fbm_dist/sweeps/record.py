"""results.json: what is known of every trial, written whole at every change; a sweep that was killed goes on from it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from data_tools.places import write_atomic

NAME = "results.json"
# open: under way, or to be gone on with; finished: came to its end; stopped: early, by ASHA; diverged: no finite gradients any more;
# failed: ended by an error, or killed too often; impossible: its values make no run, so it was not started
Status = Literal["open", "finished", "stopped", "diverged", "failed", "impossible"]
BAD = ("diverged", "failed", "impossible")


@dataclass
class Trial:
    """One row.

    Attributes:
        values: of the swept keys.
        metric: by which it is judged; None: it has none (yet).
        step: the last one that was heard of.
        seconds: of training, all sessions together.
        starts: of its process; more than 1: it was stopped, killed or hung, and went on.
        reason: why it is stopped, diverged, failed or impossible.
        node: that it ran on last.
        model: models:/NAME/VERSION, if it was registered.
        tracking_run: its MLflow run.
    """

    number: int
    values: dict[str, Any]
    folder: str
    status: Status = "open"
    metric: float | None = None
    step: int = 0
    seconds: float = 0.0
    starts: int = 0
    reason: str = ""
    node: str = ""
    model: str | None = None
    tracking_run: str | None = None


@dataclass
class Record:
    """All trials of a sweep, in the order of their numbers.

    Attributes:
        mode: whether the metric is to fall ("min") or to rise ("max").
        about: the rest of results.json: the sweep's name, metric and MLflow run.
    """

    path: Path
    mode: Literal["min", "max"]
    trials: list[Trial] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)
    _written: float = 0.0

    @staticmethod
    def open(folder: Path, mode: Literal["min", "max"]) -> Record:
        """What `folder` holds; nothing, where it is new.

        Raises:
            ValueError: results.json is damaged.
        """
        path = folder / NAME
        record = Record(path, mode)
        if path.exists():
            try:
                found = json.loads(path.read_text(encoding="utf-8"))
                known = {f.name for f in fields(Trial)}
                record.trials = [Trial(**{k: v for k, v in row.items() if k in known}) for row in found.pop("trials")]
                record.about = found
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise ValueError(f"{path} is damaged ({error}); give another output folder") from None
        return record

    def write(self) -> None:
        """Keep it."""
        tree = {**self.about, "trials": [asdict(trial) for trial in self.trials]}
        write_atomic(self.path, json.dumps(tree, indent=1, default=str).encode())
        self._written = time.monotonic()

    def progressed(self, every: float = 10.0) -> None:
        """Only numbers of running trials changed: keep it now and then."""
        if time.monotonic() - self._written > every:
            self.write()

    def ended(self) -> Iterator[Trial]:
        """Those that are over."""
        return (trial for trial in self.trials if trial.status != "open")

    def ranked(self) -> list[Trial]:
        """Finished trials, the best first; of equals the earlier one."""
        done = [t for t in self.trials if t.status == "finished" and t.metric is not None]
        return sorted(done, key=lambda t: ((t.metric or 0.0) * (1 if self.mode == "min" else -1), t.number))

    @property
    def best(self) -> Trial | None:
        """The winner so far."""
        return next(iter(self.ranked()), None)

    def count(self) -> Mapping[str, int]:
        """Status -> how many."""
        found: dict[str, int] = {}
        for trial in self.trials:
            found[trial.status] = found.get(trial.status, 0) + 1
        return found
