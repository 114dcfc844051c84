"""pretrain and evaluate: the two functions that every caller enters by, shell and sweep alike."""

from __future__ import annotations

import dataclasses
import json
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_tools.shards import write_atomic
from fbm_dist.config import dump, load
from fbm_dist.objectives.objective import Objective
from fbm_dist.schema import Evaluation, Run
from fbm_dist.training.checkpoint import differences
from fbm_dist.training.distributed import World, seed_everything, start
from fbm_dist.training.tracking import Tracker, flatten, unsent
from fbm_dist.training.trainer import Report, Summary, train

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from fbm_dist.evaluation import Results

FINISHED = "finished.json"
PACKAGES = ("torch", "deepspeed", "mlflow", "numpy", "nvidia-dali-cuda130", "pydantic", "safetensors")


def pretrain(run: Run, report: Report = lambda metrics: None) -> Summary:
    """Train `run`'s objective, keep its encoder in the run folder, and register it if the config says so.

    Every process of a distributed run calls it. The same call again goes on where the run stopped; a finished run returns at once.

    Args:
        report: called on rank 0 with every logged line.
    Raises:
        ValueError: what the user can mend, in one line, on every rank.
    """
    run = absolute(run)
    world = start(run.training)
    with world.agreed():
        check_clip(run)
        finished = read_finished(run) if world.first else None
    summary = world.broadcast(finished)
    if summary is not None:
        return _already(run, world, summary)
    seed_everything(run.run.seed)  # the same first weights on every rank
    with world.agreed():
        objective = run.objective.build()
        record = RunRecord(run, world) if world.first else None
    status = "FAILED"
    try:
        summary = train(run, objective, report, record=record)
        status = "KILLED" if summary.interrupted else "FINISHED"
    finally:
        if record:
            record.close(status)
    if summary.interrupted:
        world.say(f"stopped by a signal after step {summary.steps}; the same command goes on from there")
        return summary
    with world.agreed():
        if world.first:
            summary = keep(run, objective, summary, record.tracker.run_id if record and record.tracker else None)
    return world.broadcast(summary)


def evaluate(evaluation: Evaluation) -> Results:
    """How good the encoder is (fbm_dist/evaluation)."""
    from fbm_dist import evaluation as protocols

    return protocols.evaluate(evaluation)


def absolute(run: Run) -> Run:
    """The same run whatever the working folder is: a sweep's trials run in folders of their own."""
    from fbm_dist.registry.client import tracking_address

    folder = run.run.model_copy(update={"folder": run.run.folder.absolute()})
    data = run.data.model_copy(update={"path": run.data.path.absolute()})
    tracking = run.tracking
    if tracking.mlflow or tracking.register_as:
        tracking = tracking.model_copy(update={"uri": tracking_address(tracking.uri)})
    return run.model_copy(update={"run": folder, "data": data, "tracking": tracking})


def check_clip(run: Run) -> None:
    """The loader must give what the objective takes.

    Raises:
        ValueError: naming both keys.
    """
    model = getattr(run.objective, "trunk", run.objective)
    for key in ("frames", "size"):
        wanted, given = getattr(model, key, None), getattr(run.data.clip, key)
        if wanted is not None and wanted != given:
            raise ValueError(f"data.clip.{key} is {given}, but the objective's {key} is {wanted}; make them equal")


def keep(run: Run, objective: Objective, summary: Summary, tracking_run: str | None) -> Summary:
    """Write RUN/encoder, register it, and mark the run finished. On rank 0."""
    from fbm_dist.registry import register, save_encoder

    folder = run.run.folder / "encoder"
    info = {
        "run": run_name(run),
        "tracking_run": tracking_run,
        "data_digest": summary.data_digest,
        "data": run.data.model_dump(mode="json"),  # an evaluation asks it which films were seen
        "steps": summary.steps,
        "clips": summary.clips,
        "metrics": summary.metrics,
    }
    family = getattr(run.objective, "trunk", run.objective)
    save_encoder(objective.encoder(), family, run.data.clip, folder, info)
    print(f"encoder: {folder}", flush=True)
    uri = None
    name = run.tracking.register_as
    if name:
        try:
            version = register(
                name,
                folder,
                tracking_uri=run.tracking.uri,
                run_id=tracking_run,
                metrics={key: summary.metrics[key] for key in summary.metrics if "loss" in key},
                tags={"run": run_name(run), "data.digest": summary.data_digest},
            )
        except ValueError as error:
            raise ValueError(f"{error}; the encoder is in {folder}, the same command again registers it") from error
        uri = f"models:/{name}/{version}"
        print(f"registered: {uri}", flush=True)
    summary = dataclasses.replace(summary, encoder=folder, model_uri=uri, tracking_run=tracking_run)
    length = {"steps": run.training.steps, "epochs": run.training.epochs}
    found = {"objective": run.objective.model_dump(mode="json"), "length": length, "register_as": name}
    _write_json(run.run.folder / FINISHED, {**found, "summary": dataclasses.asdict(summary)})
    return summary


def read_finished(run: Run) -> Summary | None:
    """The summary of this very run, if it has come to its end before.

    Raises:
        ValueError: the folder holds a finished run of another objective.
    """
    path = run.run.folder / FINISHED
    if not path.exists():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    for key, old, new in differences(found["objective"], run.objective.model_dump(mode="json"), "objective"):
        raise ValueError(
            f"{run.run.folder} holds a finished run with {key}={old!r}, not {new!r}; give another run.folder"
        )
    length = {"steps": run.training.steps, "epochs": run.training.epochs}
    if found["length"] != length or found["register_as"] != run.tracking.register_as:
        return None  # longer, or to be registered: the trainer goes on from the last checkpoint
    values = found["summary"]
    paths = {key: Path(values[key]) if values[key] else None for key in ("folder", "encoder")}
    return Summary(**{**values, **paths, "pictures": tuple(Path(p) for p in values["pictures"])})


def _already(run: Run, world: World, summary: Summary) -> Summary:
    """A finished run again: say so, and send what MLflow has not got."""
    world.say(f"{run.run.folder}: finished after {summary.steps} steps; nothing to do (another run.folder starts anew)")
    with world.agreed():
        if world.first and run.tracking.mlflow and unsent(run.run.folder):
            record = RunRecord(run, world)
            record.follow()
            record.close("FINISHED")
    world.say(f"encoder: {summary.encoder}" + (f"\nregistered: {summary.model_uri}" if summary.model_uri else ""))
    return summary


def run_name(run: Run) -> str:
    """The name under which people see the run."""
    return run.run.name or run.run.folder.name


class RunRecord:
    """Rank 0's account of a run: config.yaml and version.json in its folder, and MLflow."""

    def __init__(self, run: Run, world: World) -> None:
        """Reach MLflow, if the config says so: a server that does not answer ends the run here. Nothing is written yet."""
        self.run, self.world = run, world
        self.folder = run.run.folder
        self.tracker: Tracker | None = None
        self._mlflow: tuple[MlflowClient, str] | None = None  # and the experiment's id
        if run.tracking.mlflow:
            from fbm_dist.registry.client import connect, experiment_id

            client = connect(run.tracking.uri)
            self._mlflow = client, experiment_id(client, run.tracking.experiment)

    def follow(self) -> None:
        """Open the MLflow run that this folder names, or a new one."""
        if self._mlflow:
            from fbm_dist.registry.client import calling

            with calling("open the run"):
                self.tracker = Tracker(*self._mlflow, self.folder, run_name(self.run), self.world.say)

    def opened(self, facts: Mapping[str, str]) -> None:
        """Data and checkpoint suit this run (one that is refused leaves the folder as it was): write and tell what it is."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write_config()
        self.follow()
        version = {**code_version(), **facts}
        _write_json(self.folder / "version.json", version)
        if self.tracker:
            from fbm_dist.registry.client import calling

            parameters = {**flatten(self.run.model_dump(mode="json")), "data.digest": facts["data.digest"]}
            tags = {**facts, "git.commit": str(version["git_commit"])}
            with calling("take the run's parameters"):
                self.tracker.describe(parameters, tags, [self.folder / "config.yaml", self.folder / "version.json"])

    def wake(self) -> None:
        """There is a new line or picture in the folder."""
        if self.tracker:
            self.tracker.wake()

    def close(self, status: str) -> None:
        """Send what is left, for a bounded time."""
        if self.tracker:
            self.tracker.close(status)

    def _write_config(self) -> None:
        path, text = self.folder / "config.yaml", dump(self.run)
        if path.exists() and path.read_text(encoding="utf-8") != text:
            before = load(Run, path).model_dump(mode="json")
            for key, old, new in differences(before, self.run.model_dump(mode="json"), ""):
                self.world.say(f"{key} was {old!r}, is {new!r} from here on")
            number = len(list(self.folder.glob("config.*.yaml")))
            path.rename(self.folder / f"config.{number}.yaml")  # what the steps so far were made with
        write_atomic(path, text.encode())


def code_version() -> dict[str, Any]:
    """Commit (None outside a checkout), uncommitted changes, Python and the packages that decide numbers."""
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    commit = _git("rev-parse", "HEAD")
    return {
        "git_commit": commit,
        "git_changes": bool(_git("status", "--porcelain")) if commit else None,
        "python": platform.python_version(),
        "packages": versions,
    }


def _git(*arguments: str) -> str | None:
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():  # installed: a commit found further up would be another project's
        return None
    try:
        found = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()


def _write_json(path: Path, value: Any) -> None:
    write_atomic(path, json.dumps(value, indent=1, default=str).encode())
