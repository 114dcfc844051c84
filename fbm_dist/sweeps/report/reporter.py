"""Follows a sweep: a line on the console at each begin and end of a trial, and the files of its folder after each end."""

from __future__ import annotations

import shutil
from pathlib import Path

from fbm_dist.schema import Run
from fbm_dist.sweeps.config import Sweep
from fbm_dist.sweeps.record import Record, Trial
from fbm_dist.sweeps.report.figure import draw
from fbm_dist.sweeps.report.tables import write_tables
from fbm_dist.sweeps.report.tracking import Parent
from fbm_dist.sweeps.report.winner import command, write_best
from fbm_dist.sweeps.runs import shown
from fbm_dist.sweeps.search.space import short_names

CHECKPOINTS = "checkpoints"  # of a run folder
FILES = ("table.md", "table.csv", "results.json", "figure.png", "figure.svg", "best.yaml")


class Reporter:
    """Hears of the trials from the searcher (`searcher.Told`)."""

    def __init__(
        self, sweep: Sweep, base: Run, record: Record, folder: Path, total: int, parent: Parent | None
    ) -> None:
        self.sweep, self.base, self.record, self.folder = sweep, base, record, folder
        self.total, self.parent = total, parent
        self.names = short_names(tuple(sweep.space))

    def say(self, text: str) -> None:
        """One line."""
        print(text, flush=True)

    def begins(self, trial: Trial) -> None:
        """It is given to a node."""
        verb = "goes on" if trial.step else "starts"
        self.say(f"trial {trial.number:04d} of {self.total}: {self.told(trial)}: {verb}")

    def lost(self, trial: Trial) -> None:
        """Another worker takes it."""
        self.say(f"trial {trial.number:04d} of {self.total}: its worker was lost; another one goes on with it")

    def ended(self, trial: Trial) -> None:
        """It is over: console, files, MLflow."""
        metric = "" if trial.metric is None else f", {self.sweep.metric.name} {trial.metric:.5g}"
        best = " (the best so far)" if trial is self.record.best else ""
        why = f": {trial.reason}" if trial.reason else ""
        self.say(f"trial {trial.number:04d} of {self.total}: {trial.status}{metric}{best}{why}")
        self.write()
        if self.parent:
            self.parent.trial(trial)
        if self.sweep.checkpoints == "drop":
            for other in self.record.ended():
                if other is not self.record.best:
                    shutil.rmtree(Path(other.folder) / CHECKPOINTS, ignore_errors=True)

    def write(self) -> None:
        """All files, as the trials are now."""
        write_tables(self.sweep, self.record, self.folder)
        draw(self.sweep, self.record, self.folder)
        best = self.record.best
        if best:
            write_best(self.sweep, self.base, best, self.folder)

    def told(self, trial: Trial) -> str:
        """Its values, by short names."""
        return " ".join(f"{self.names[key]}={shown(value)}" for key, value in trial.values.items())

    def files(self) -> list[Path]:
        """Of the sweep's folder, for MLflow."""
        return [self.folder / name for name in FILES]

    def summary(self) -> None:
        """What won, and what to do next."""
        best, sweep = self.record.best, self.sweep
        counts = ", ".join(f"{number} {status}" for status, number in self.record.count().items())
        self.say(f"\n{len(self.record.trials)} trials: {counts}")
        self.say(f"table: {self.folder / 'table.md'}")
        if (self.folder / "figure.png").exists():
            self.say(f"figure: {self.folder / 'figure.png'}")
        if best is None:
            return
        self.say(f"best: trial {best.number:04d}, {sweep.metric.name} {best.metric:.6g} with {self.told(best)}")
        self.say(f"encoder: {Path(best.folder) / 'encoder'}")
        if best.model:
            self.say(f"registered: {best.model} ({best.model.rpartition('/')[0]}@{sweep.alias})")
        self.say(f"its config: {self.folder / 'best.yaml'}; next, e.g. for longer:")
        self.say(f"  {command(sweep, self.folder / 'best.yaml')} run.folder=runs/best")
