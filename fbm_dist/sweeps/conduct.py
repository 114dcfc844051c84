"""A sweep from start to end: check, go on where it stopped, run the trials by Ray Tune, and keep what came out."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_tools.places import write_atomic
from fbm_dist.config import ConfigError, dump, load
from fbm_dist.run import absolute
from fbm_dist.schema import Run
from fbm_dist.sweeps.config import SECTIONS, Sweep
from fbm_dist.sweeps.record import Record
from fbm_dist.sweeps.report.reporter import Reporter
from fbm_dist.sweeps.report.tracking import Parent, register_best
from fbm_dist.sweeps.runs import Runs, check_base, shown
from fbm_dist.sweeps.search.samplers import Sampler, sampler_of
from fbm_dist.sweeps.search.searcher import Conductor, State
from fbm_dist.sweeps.session import run_trials
from fbm_dist.training.checkpoints.identity import differences

STOPPED = 75  # exit code: a signal ended it early; the same command goes on
CONFIG, BASE, LOCK = "sweep.yaml", "run.yaml", ".lock"
# keys that say how, not what: another value may go on with the same folder
FREE = (
    "trials",
    "parallel",
    "retries",
    "rerun_failed",
    "checkpoints",
    "alias",
    "output",
    "pretrain",
    "resources",
    "ray",
)
CHECKED = 64  # combinations of values that are tried as configs before anything starts


def conduct(sweep: Sweep) -> int:
    """Run the sweep, or what is left of it.

    Returns:
        The exit code: 0 there is a best trial, 1 none came to its end, 75 or 130 stopped by a signal.
    Raises:
        ConfigError: the config, or every combination of values, is no run; ValueError: what else the user can mend.
    """
    folder = sweep.output.absolute()
    runs = Runs(sweep, folder)
    base = runs.base()
    check_base(sweep, base)
    base = absolute(base)
    with alone(folder):
        record = Record.open(folder, sweep.metric.mode)
        check_same(sweep, base, folder, record)
        if sweep.rerun_failed:
            for trial in record.trials:
                if trial.status in ("failed", "diverged"):
                    trial.status, trial.reason = "open", ""
        sampler = sampler_of(sweep, record.trials)
        check_combinations(sampler, runs, record)
        record.about |= {"sweep": folder.name, "metric": sweep.metric.model_dump(), "mode": record.mode}
        record.write()
        return _go(sweep, runs, base, record, sampler)


def _go(sweep: Sweep, runs: Runs, base: Run, record: Record, sampler: Sampler) -> int:
    name, state, status = runs.folder.name, State(), "FAILED"
    parent = Parent(sweep, base, record, name, lambda text: print(text, flush=True)) if base.tracking.mlflow else None
    reporter = Reporter(sweep, base, record, runs.folder, max(sampler.total, len(record.trials)), parent)
    conductor = Conductor(sweep, runs, record, sampler, state, reporter, parent.run_id if parent else None)
    try:
        if conductor.left:
            warn_of_comparison(sweep, reporter)
            run_trials(sweep, base, conductor, state)
        record.write()
        reporter.write()
        if state.fatal:
            raise ValueError(state.fatal)
        if conductor.unfinished:
            status = "KILLED"
            reporter.say(f"stopped with {conductor.unfinished} trials to run; the same command goes on")
            return 130 if state.signal == signal.SIGINT else STOPPED
        register_best(sweep, base, record, name)
        reporter.write()
        status = "FINISHED" if record.best else "FAILED"
        reporter.summary()
    finally:
        if parent:
            parent.close(status, reporter.files())
    if record.best is None:
        raise ValueError(f"no trial came to its end; why: {runs.folder / 'table.md'}")
    return 0


def check_same(sweep: Sweep, base: Run, folder: Path, record: Record) -> None:
    """The folder is new, or holds this very sweep; what may change is written anew.

    Raises:
        ValueError: naming what differs.
    """
    judged = any(record.ended())  # until then another metric will do as well
    for name, config, schema, free in (
        (CONFIG, sweep, Sweep, (*FREE, *SECTIONS, *(() if judged else ("metric",)))),
        (BASE, base, Run, ("run.folder", "run.name", "tracking")),
    ):
        path = folder / name
        if not (record.trials and path.exists()):
            continue
        then, now = (c.model_dump(mode="json") for c in (load(schema, path), config))
        for key, old, new in differences(then, now, ""):
            if not any(key == one or key.startswith(f"{one}.") for one in free):
                raise ValueError(
                    f"{folder} holds a sweep with {key}={shown(old)}, not {shown(new)}; set it back, or give another output"
                )
    write_atomic(folder / CONFIG, dump(sweep).encode())
    write_atomic(folder / BASE, dump(base).encode())


def check_combinations(sampler: Sampler, runs: Runs, record: Record) -> None:
    """The values make runs: none of them is a typing error. Some may be impossible together; the sweep marks those.

    Raises:
        ConfigError: not one of the first combinations is a run.
    """
    errors: list[str] = []
    numbers = range(len(record.trials), min(sampler.total, CHECKED + len(record.trials)))
    for number in numbers:
        values = sampler.look(number)
        try:
            runs.of(number, values)
        except ValueError as error:
            errors.append(str(error))
    if errors and len(errors) == len(numbers):
        raise ConfigError(errors[0])
    if errors:
        print(f"{len(errors)} of {len(numbers)} combinations of values make no run; the first: {errors[0]}", flush=True)


def warn_of_comparison(sweep: Sweep, reporter: Reporter) -> None:
    """Say it where the metric itself is what is swept."""
    words = ("weight", "margin", "alpha", "beta", "_share")
    swept = [key for key in sweep.space if key.startswith("objective.") and any(w in key.split(".")[-1] for w in words)]
    if swept and sweep.metric.name.rpartition("/")[2] == "loss":
        reporter.say(
            f"warning: {sweep.metric.name} holds {swept[0]} itself, so trials are not comparable by it; "
            "give metric.name a single term, or a probe (probe/all_knn with a probe section)"
        )


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One sweep at a time in a folder.

    Raises:
        ValueError: there is one, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise ValueError(f"output={folder}: {error.strerror}; give another folder") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        raise ValueError(
            f"output={folder}: another sweep is at work there; wait for it, or give another folder"
        ) from None
    except OSError:
        pass  # a file system without locks
    try:
        yield
    finally:
        os.close(file)
