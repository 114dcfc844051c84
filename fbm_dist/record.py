"""RunRecord: what a run folder and MLflow are told about a run: config.yaml, version.json, metrics and pictures."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_tools.places import write_atomic
from fbm_dist.config import dump, load
from fbm_dist.schema import Run
from fbm_dist.training.checkpoints.identity import differences
from fbm_dist.training.distributed import World
from fbm_dist.training.faults.preflight import Report
from fbm_dist.training.monitoring.tracking import Tracker, flatten

if TYPE_CHECKING:
    from mlflow import MlflowClient

PACKAGES = ("torch", "deepspeed", "mlflow", "numpy", "nvidia-dali-cuda130", "pydantic", "safetensors")


def run_name(run: Run) -> str:
    """The name under which people see the run."""
    return run.run.name or run.run.folder.name


class RunRecord:
    """Rank 0's account of a run: config.yaml and version.json in its folder, and MLflow."""

    def __init__(self, run: Run, world: World, looked: Report | None = None) -> None:
        """Reach MLflow, if the config says so: a server that does not answer ends the run here. Nothing is written yet."""
        self.run, self.world, self.looked = run, world, looked
        self.folder = run.run.folder
        self.tracker: Tracker | None = None
        self.begun_from: dict[str, str] = {}  # earlier weights
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
        path = self.folder / "version.json"
        if not self.begun_from and path.exists():  # it goes on: what it began from stays known
            before = json.loads(path.read_text(encoding="utf-8"))
            self.begun_from = {key: value for key, value in before.items() if key.startswith("init_from.")}
        version = {**code_version(), **facts, **self.begun_from}
        write_json(path, version)
        if self.looked:
            self.looked.write(self.folder)
        if self.tracker:
            from fbm_dist.registry.client import calling

            parameters = {**flatten(self.run.model_dump(mode="json")), "data.digest": facts["data.digest"]}
            tags = {**facts, **self.begun_from, "git.commit": str(version["git_commit"])}
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


def write_json(path: Path, value: Any) -> None:
    write_atomic(path, json.dumps(value, indent=1, default=str).encode())
