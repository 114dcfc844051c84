"""MLflow follows a run from a thread of its own: metrics.jsonl and pictures/ are its queue, so a lost server costs nothing.

What is sent is remembered in the run folder; what could not be sent goes out later, in this session or the next one.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fbm_dist.training.monitoring.metrics import NAME, read_lines, read_on
from fbm_dist.training.monitoring.pictures import FOLDER as PICTURES

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

CURSOR = "mlflow.json"
PARENT = "FBM_PARENT_RUN"  # variable: the MLflow run that a new one is shown below, as a sweep gives it to its trials
MAX_METRICS = 1_000  # MLflow's limit per request
MAX_LINES = 50  # between two notes of what was sent
MAX_PARAMETERS = 90
MAX_VALUE = 5_000
# While training, a server that hangs costs the thread this long and no more. Uploads at registration keep MLflow's own limits.
IMPATIENT = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
PAUSE = 2.0  # seconds between looks into the queue
LONGEST_PAUSE = 60.0  # while the server is away


class Tracker:
    """Sends one run folder to one MLflow run. Made and used on rank 0 only."""

    def __init__(
        self,
        client: MlflowClient,
        experiment: str,
        folder: Path,
        name: str,
        say: Callable[[str], None] = print,
        pause: float = PAUSE,
    ) -> None:
        """Continue the MLflow run that the folder names, or make one in the experiment with id `experiment`."""
        self.client, self.folder, self.say, self.pause = client, folder, say, pause
        self._before = {key: os.environ.get(key) for key in IMPATIENT}
        for key, value in IMPATIENT.items():
            os.environ.setdefault(key, value)
        self.cursor = self._continued() or self._created(experiment, name)
        self._queue: list[dict[str, Any]] = []  # read from the file, not sent
        self._offset = 0  # bytes of the file that were read
        self._away = False
        self._status = "RUNNING"
        self._bell = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(
            target=self._work, name="mlflow", daemon=True
        )  # a hanging server holds up no exit

    @property
    def run_id(self) -> str:
        """Of the MLflow run."""
        return str(self.cursor["run_id"])

    def describe(self, parameters: Mapping[str, Any], tags: Mapping[str, str], artifacts: Sequence[Path] = ()) -> None:
        """What is known at the start; raises what MLflow raises. Parameters that MLflow holds already are never overwritten."""
        from mlflow.entities import Param, RunTag

        held = self.client.get_run(self.run_id).data.params
        texts = {key: str(value)[:MAX_VALUE] for key, value in parameters.items()}
        fresh = [Param(key, text) for key, text in texts.items() if key not in held]
        for start in range(0, len(fresh), MAX_PARAMETERS):
            self.client.log_batch(self.run_id, params=fresh[start : start + MAX_PARAMETERS])
        changed = {f"changed.{key}": text for key, text in texts.items() if key in held and held[key] != text}
        self.client.log_batch(self.run_id, tags=[RunTag(key, value) for key, value in {**tags, **changed}.items()])
        for path in artifacts:
            self.client.log_artifact(self.run_id, str(path))

    def start(self) -> None:
        """Begin to send. The lines before the checkpoint must stand as they are (`MetricsFile`) by now."""
        if self._thread.ident is None:
            self._thread.start()

    def wake(self) -> None:
        """There is something new in the folder."""
        self.start()
        self._bell.set()

    def close(self, status: str, patience: float = 30.0) -> int:
        """Send what is left for at most `patience` seconds, and end the MLflow run as FINISHED, FAILED or KILLED.

        Returns:
            how many lines and pictures are unsent.
        """
        self._status = status
        self._closing.set()
        self.wake()
        self._thread.join(patience)
        for key, value in self._before.items():
            if value is None:
                os.environ.pop(key, None)
        left = unsent(self.folder)
        if left:
            self.say(
                f"MLflow: {left} lines and pictures wait in {self.folder}; the same command, run again, sends them"
            )
        return left

    def _work(self) -> None:
        pause = self.pause
        while True:
            closing = self._closing.is_set()
            try:
                self._send()
                if closing:
                    self.client.set_terminated(self.run_id, self._status)
                pause = self.pause
                if self._away:
                    self._away = False
                    self.say("MLflow answers again; what had waited is sent")
            except Exception as error:  # the network's and MLflow's errors are many, and none may stop the training
                if not self._away:
                    self._away = True
                    self.say(f"MLflow does not take metrics ({_brief(error)}); they wait in {self.folder / NAME}")
                pause = min(2 * pause, LONGEST_PAUSE)
            if closing:
                return
            if self._away:  # new lines do not hurry a server that is away
                self._closing.wait(pause)
            else:
                self._bell.wait()
                self._closing.wait(self.pause)  # lines gather to one request
                self._bell.clear()

    def _send(self) -> None:
        from mlflow.entities import Metric

        self._queue += self._new_lines()
        while self._queue:
            lines = self._queue[:MAX_LINES]
            metrics = [
                Metric(key, float(value), int(line["time"] * 1000), line["step"])
                for line in lines
                for key, value in line.items()
                if key not in ("step", "time") and value is not None
            ]
            for start in range(0, len(metrics), MAX_METRICS):
                self.client.log_batch(self.run_id, metrics=metrics[start : start + MAX_METRICS])
            self.cursor["sent_step"] = lines[-1]["step"]
            self._remember()
            del self._queue[: len(lines)]
        for picture in self._pictures():
            self.client.log_artifact(self.run_id, str(picture), PICTURES)
            self.cursor["pictures"].append(picture.name)
            self._remember()

    def _new_lines(self) -> list[dict[str, Any]]:
        lines, self._offset = read_on(self.folder / NAME, self._offset)
        return [line for line in lines if line["step"] > self.cursor["sent_step"]]

    def _pictures(self) -> list[Path]:
        sent = set(self.cursor["pictures"])
        return [path for path in sorted((self.folder / PICTURES).glob("*.png")) if path.name not in sent]

    def _continued(self) -> dict[str, Any] | None:
        """The folder's cursor, when it belongs to this server and MLflow still has its run."""
        path = self.folder / CURSOR
        if not path.exists():
            return None
        cursor = json.loads(path.read_text(encoding="utf-8"))
        if cursor["tracking_uri"] != self.client.tracking_uri:
            self.say(f"{path}: the run was tracked at another address; it starts anew here, with all its metrics")
            return None
        from mlflow.exceptions import MlflowException

        try:
            deleted = self.client.get_run(cursor["run_id"]).info.lifecycle_stage == "deleted"
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            deleted = True
        if deleted:
            self.say(f"{path}: MLflow run {cursor['run_id']} was deleted; a new one takes all metrics")
            return None
        self.client.update_run(cursor["run_id"], status="RUNNING")
        return cursor

    def _created(self, experiment: str, name: str) -> dict[str, Any]:
        parent = os.environ.get(PARENT)
        tags = {"mlflow.parentRunId": parent} if parent else None
        run = self.client.create_run(experiment, run_name=name, tags=tags)
        self.cursor = {
            "tracking_uri": self.client.tracking_uri,
            "run_id": run.info.run_id,
            "sent_step": -1,
            "pictures": [],
        }
        self._remember()
        return self.cursor

    def _remember(self) -> None:
        path = self.folder / CURSOR
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(self.cursor, indent=1), encoding="utf-8")
        fresh.replace(path)


def unsent(folder: Path) -> int:
    """How many lines and pictures of a run folder its MLflow run has not got."""
    path = folder / CURSOR
    if not path.exists():
        return 0
    cursor = json.loads(path.read_text(encoding="utf-8"))
    lines = sum(line["step"] > cursor["sent_step"] for line in read_lines(folder / NAME))
    return lines + sum(p.name not in cursor["pictures"] for p in (folder / PICTURES).glob("*.png"))


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _brief(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."
