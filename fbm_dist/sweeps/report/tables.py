"""table.md for people and table.csv for programs: a row a trial."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from data_tools.places import write_atomic
from fbm_dist.sweeps.config import Sweep
from fbm_dist.sweeps.record import Record, Trial
from fbm_dist.sweeps.runs import shown
from fbm_dist.sweeps.search.space import short_names

FIELDS = ("status", "step", "seconds", "starts", "node", "reason", "folder", "model", "tracking_run")
LONGEST = 160  # characters of a reason in table.md


def write_tables(sweep: Sweep, record: Record, folder: Path) -> None:
    """Both tables, as the trials are now."""
    write_atomic(folder / "table.md", markdown(sweep, record, folder).encode())
    write_atomic(folder / "table.csv", _csv(sweep, record).encode())


def markdown(sweep: Sweep, record: Record, folder: Path) -> str:
    """The best trial first; those that came to nothing last, with their reasons."""
    names = short_names(tuple(sweep.space))
    ranked = record.ranked()
    others = [trial for trial in record.trials if trial not in ranked]
    order = ("stopped", "open", "diverged", "failed", "impossible")
    others.sort(key=lambda trial: (order.index(trial.status) if trial.status in order else -1, trial.number))
    head = ["trial", *names.values(), sweep.metric.name, "status", "steps", "seconds", "why"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += [_row(trial, tuple(names), best=trial is record.best) for trial in [*ranked, *others]]
    told = ", ".join(f"{number} {status}" for status, number in record.count().items())
    direction = "lower" if sweep.metric.mode == "min" else "higher"
    title = f"# Sweep {folder.name}\n\n{sweep.metric.name} ({sweep.metric.at} value of a run, {direction} is better) of"
    return f"{title} `{sweep.pretrain}`; {len(record.trials)} trials: {told}.\n\n" + "\n".join(lines) + "\n"


def _row(trial: Trial, keys: tuple[str, ...], best: bool) -> str:
    metric = "" if trial.metric is None else f"{trial.metric:.5g}"
    cells = [f"{trial.number:04d}", *(shown(trial.values.get(key)) for key in keys), metric]
    cells = [f"**{cell}**" for cell in cells] if best else cells
    why = trial.reason if len(trial.reason) <= LONGEST else f"{trial.reason[: LONGEST - 3]}..."
    cells += [trial.status, str(trial.step), f"{trial.seconds:.0f}", why]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _csv(sweep: Sweep, record: Record) -> str:
    """Full keys and digits, in the order of the trials."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", *sweep.space, sweep.metric.name, *FIELDS])
    for trial in record.trials:
        values = [trial.values.get(key) for key in sweep.space]
        row = [trial.number, *values, trial.metric, *(getattr(trial, name) for name in FIELDS)]
        writer.writerow(["" if value is None else value for value in row])
    return text.getvalue()
