"""A sweep in MLflow: one run for the whole, the trials' own runs below it, and the best encoder registered under an alias."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fbm_dist import registry
from fbm_dist.config import dump
from fbm_dist.registry.client import NotInRegistryError, calling, connect, experiment_id
from fbm_dist.schema import Run
from fbm_dist.sweeps.config import Sweep
from fbm_dist.sweeps.record import Record, Trial
from fbm_dist.sweeps.runs import shown
from fbm_dist.training.monitoring.tracking import IMPATIENT, MAX_PARAMETERS, MAX_VALUE, flatten

if TYPE_CHECKING:
    from mlflow import MlflowClient

RUN = "tracking_run"  # in results.json
MODEL = "model"


class Parent:
    """The sweep's own MLflow run. While trials are at work a server that is away costs nothing: the figures go out at the end."""

    def __init__(self, sweep: Sweep, base: Run, record: Record, name: str, say: Callable[[str], None]) -> None:
        """Go on with the run that the record names, or make one.

        Raises:
            ValueError: MLflow does not answer.
        """
        self.sweep, self.record, self.name, self.say = sweep, record, name, say
        self.client: MlflowClient = connect(base.tracking.uri)
        run_id = record.about.get(RUN)
        with calling("open the sweep's run"):
            if run_id and not self._gone(run_id):
                self.client.update_run(run_id, status="RUNNING")
            else:
                experiment = experiment_id(self.client, base.tracking.experiment)
                tags = {"sweep": name, "sweep.metric": sweep.metric.name}
                run_id = self.client.create_run(experiment, run_name=f"sweep {name}", tags=tags).info.run_id
                self._describe(run_id)
        self.run_id = str(run_id)
        record.about[RUN] = self.run_id
        record.write()

    def _gone(self, run_id: str) -> bool:
        try:
            with calling("find the sweep's run"):
                return bool(self.client.get_run(run_id).info.lifecycle_stage == "deleted")
        except NotInRegistryError:
            return True

    def _describe(self, run_id: str) -> None:
        from mlflow.entities import Param

        flat = flatten(self.sweep.model_dump(mode="json"))
        found = [Param(key, str(value)[:MAX_VALUE]) for key, value in flat.items() if value not in ({}, None)]
        for start in range(0, len(found), MAX_PARAMETERS):
            self.client.log_batch(run_id, params=found[start : start + MAX_PARAMETERS])
        self.client.log_text(run_id, dump(self.sweep), "sweep.yaml")

    def trial(self, trial: Trial) -> None:
        """A trial is over: its run says how, and the sweep's how good the best is."""
        from mlflow.entities import Metric, RunTag

        told = {"sweep": self.name, "sweep.trial": str(trial.number), "sweep.status": trial.status}
        told |= {"sweep.reason": trial.reason} if trial.reason else {}
        told |= {f"sweep.{key}": shown(value) for key, value in trial.values.items()}
        try:
            with impatient(), calling("note a trial"):
                if trial.tracking_run:
                    self.client.log_batch(trial.tracking_run, tags=[RunTag(key, text) for key, text in told.items()])
                now = int(time.time() * 1000)
                metrics = []
                if trial.metric is not None:
                    metrics.append(Metric("trial", trial.metric, now, trial.number))
                if self.record.best is not None and self.record.best.metric is not None:
                    metrics.append(Metric("best", self.record.best.metric, now, trial.number))
                self.client.log_batch(self.run_id, metrics=metrics)
        except ValueError as error:
            self.say(f"{error}; the sweep goes on, its folder has all")

    def close(self, status: str, files: Sequence[Path]) -> None:
        """The files of the sweep's folder, and the end."""
        try:
            with calling("end the sweep's run"):
                for path in files:
                    if path.exists():
                        self.client.log_artifact(self.run_id, str(path))
                self.client.set_terminated(self.run_id, status)
        except ValueError as error:
            self.say(f"{error}; the same command again sends what is missing")


@contextmanager
def impatient() -> Iterator[None]:
    """A server that is away holds up the sweep for seconds, not for the minutes that MLflow's client would try."""
    before = {key: os.environ.get(key) for key in IMPATIENT}
    os.environ |= {key: before[key] or value for key, value in IMPATIENT.items()}
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)


def register_best(sweep: Sweep, base: Run, record: Record, name: str) -> str | None:
    """The best trial's encoder as a version of the run's registered name, with the sweep's alias; once.

    Returns:
        models:/NAME/VERSION; None: the run registers nothing, or there is no best.
    Raises:
        ValueError: MLflow does not take it.
    """
    best, model = record.best, base.tracking.register_as
    if best is None or best.metric is None or not model:
        return None
    if best.model is None:
        tags = {"sweep": name, "sweep.trial": str(best.number), "sweep.metric": sweep.metric.name}
        tags |= {"sweep.value": f"{best.metric:.6g}"} | {f"sweep.{key}": shown(v) for key, v in best.values.items()}
        version = registry.register(
            model,
            Path(best.folder) / "encoder",
            tracking_uri=base.tracking.uri,
            run_id=best.tracking_run,
            metrics={sweep.metric.name: best.metric},
            tags=tags,
        )
        best.model = f"models:/{model}/{version}"
        record.write()
    registry.promote(model, best.model.rpartition("/")[2], tracking_uri=base.tracking.uri, alias=sweep.alias)
    record.about[MODEL] = best.model
    record.write()
    return best.model
