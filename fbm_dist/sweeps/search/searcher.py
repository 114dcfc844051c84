"""Between Tune and the record: which trial is next, and what becomes of each. Runs in the sweep's own process."""

from __future__ import annotations

import json
import pickle
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ray import tune
from ray.tune.search import Searcher

from fbm_dist.config import ConfigError
from fbm_dist.sweeps import runs
from fbm_dist.sweeps.config import Sweep
from fbm_dist.sweeps.record import Record, Trial
from fbm_dist.sweeps.search.samplers import Sampler
from fbm_dist.sweeps.trial.worker import Order

HOPELESS = 5  # trials of which none has come to anything: the sweep ends


@runtime_checkable
class Told(Protocol):
    """Who hears of the trials."""

    def begins(self, trial: Trial) -> None:
        """It is given to a node."""

    def lost(self, trial: Trial) -> None:
        """Its worker is gone; another one takes it."""

    def ended(self, trial: Trial) -> None:
        """It is over."""


@dataclass
class State:
    """What the searcher, Tune's stopper and the signals share.

    Attributes:
        stopping: a signal asked for the end; signal: which.
        fatal: why no trial can succeed.
    """

    stopping: bool = False
    signal: int = 0
    fatal: str = ""

    @property
    def over(self) -> bool:
        """No new trials, and those under way stop."""
        return self.stopping or bool(self.fatal)


class _Stays:
    """Tune pickles what it is given, to restore an experiment. Ours is not restored so, and stays in this process."""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __deepcopy__(self, memo: Any) -> Any:
        return self


class Stop(_Stays, tune.Stopper):
    """Ends Tune's experiment when the sweep is over."""

    def __init__(self, state: State) -> None:
        self.state = state

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No single trial."""
        return False

    def stop_all(self) -> bool:
        """All of them."""
        return self.state.over


class Conductor(_Stays, Searcher):
    """Gives Tune the trials that are open in the record, then new ones, and writes down what becomes of them."""

    def __init__(
        self,
        sweep: Sweep,
        every: runs.Runs,
        record: Record,
        sampler: Sampler,
        state: State,
        told: Told,
        parent: str | None,
    ) -> None:
        super().__init__(metric="value", mode=sweep.metric.mode)
        self.sweep, self.runs, self.record, self.sampler = sweep, every, record, sampler
        self.state, self.told, self.parent = state, told, parent
        self._open = [trial for trial in record.trials if trial.status == "open"]
        self._trials: dict[str, Trial] = {}  # by Tune's name
        self._begun: set[str] = set()

    @property
    def left(self) -> int:
        """Trials to give to Tune, impossible ones among the new ones included."""
        return len(self._open) + self._unborn

    @property
    def unfinished(self) -> int:
        """Trials that are not over."""
        return sum(trial.status == "open" for trial in self.record.trials) + self._unborn

    @property
    def _unborn(self) -> int:
        return max(0, self.sampler.total - len(self.record.trials))

    def suggest(self, trial_id: str) -> Any:
        """The next trial for Tune; Searcher.FINISHED if there is none."""
        while not self.state.over:
            trial = self._open.pop(0) if self._open else self._new()
            if trial is None:
                break
            config = self._prepared(trial)
            if config is None:
                continue
            self._trials[trial_id] = trial
            return {"order": asdict(self._order(trial, config))}
        return str(Searcher.FINISHED)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """A line, or a sign of life."""
        trial = self._trials[trial_id]
        if trial_id not in self._begun:  # until now it may have waited for room
            self._begun.add(trial_id)
            self.told.begins(trial)
        self._note(trial, result)
        if "value" in result:
            trial.metric = result["value"]
        self.record.progressed()

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tune has done with it: it ended, ASHA ended it, or its node was lost too often."""
        if self.state.over or trial_id not in self._trials:
            return  # it stays open, and goes on the next time
        trial, result = self._trials.pop(trial_id), result or {}
        self._note(trial, result)
        status = result.get("status")
        if error:
            trial.status, trial.reason = "failed", "its worker was lost (node gone, or out of memory?)"
        elif status is None:
            trial.status = "stopped"
            trial.reason = f"by ASHA after step {trial.step}"
        elif status == "misnamed":
            self.state.fatal = result["reason"]
            return
        else:
            trial.status, trial.reason = status, result["reason"]
            trial.metric = result.get("value", trial.metric if status == "diverged" else None)
        self._over(trial)

    def lost(self, trial_id: str) -> None:
        """Its worker, or the node; Tune starts it again."""
        if trial_id in self._trials:
            self.told.lost(self._trials[trial_id])

    def _over(self, trial: Trial) -> None:
        trial.tracking_run = _tracking_run(Path(trial.folder)) or trial.tracking_run
        self.sampler.tell(trial)
        self.record.write()
        self.told.ended(trial)
        ended = list(self.record.ended())
        if len(ended) >= HOPELESS and all(t.status in ("failed", "impossible") for t in ended):
            self.state.fatal = f"the first {len(ended)} trials have all failed; the last: {trial.reason}"

    def _new(self) -> Trial | None:
        number = len(self.record.trials)
        if number >= self.sampler.total:
            return None
        trial = Trial(number, self.sampler.ask(number), str(self.runs.folder_of(number)))
        self.record.trials.append(trial)
        return trial

    def _prepared(self, trial: Trial) -> Path | None:
        """Its config, written; None: there is none for these values."""
        try:
            path = self.runs.write(trial.number, self.runs.of(trial.number, trial.values))
        except (ConfigError, ValueError) as error:
            trial.status, trial.reason = "impossible", " ".join(str(error).split())
            self._over(trial)
            return None
        self.record.write()
        return path

    def _order(self, trial: Trial, config: Path) -> Order:
        sweep, resources = self.sweep, self.sweep.resources
        return Order(
            number=trial.number,
            door=str(runs.DOOR),
            config=str(config),
            metric=sweep.metric.name,
            mode=sweep.metric.mode,
            at=sweep.metric.at,
            processes=resources.num_processes,
            cpus=resources.cpus,
            gpus=resources.gpus,
            retries=sweep.retries,
            grace=resources.grace,
            parent=self.parent,
        )

    def _note(self, trial: Trial, result: dict[str, Any]) -> None:
        trial.step = max(trial.step, result.get("steps", 0))
        trial.seconds = result.get("trained") or trial.seconds
        trial.starts, trial.node = result.get("starts", trial.starts), result.get("node", trial.node)

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """The config of the sweep has said all."""
        return True

    def save(self, checkpoint_path: str) -> None:
        """The record is its state; Tune wants a file."""
        Path(checkpoint_path).write_bytes(pickle.dumps(None))

    def restore(self, checkpoint_path: str) -> None:
        """Tune's own resume is not used."""


class Losses(_Stays, tune.Callback):
    """Hears of lost workers."""

    def __init__(self, conductor: Conductor) -> None:
        self.conductor = conductor

    def on_trial_recover(self, iteration: int, trials: Any, trial: Any, **more: Any) -> None:
        """Tune starts the trial again."""
        self.conductor.lost(trial.trial_id)


def _tracking_run(folder: Path) -> str | None:
    """The MLflow run that a run folder names."""
    try:
        return str(json.loads((folder / "mlflow.json").read_text(encoding="utf-8"))["run_id"])
    except (OSError, ValueError, KeyError):
        return None
