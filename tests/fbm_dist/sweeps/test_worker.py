"""A trial on its node, without Ray: what it says line by line, by which value it is judged, and when it is tried again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fbm_dist.config import load
from fbm_dist.sweeps.runs import Runs
from fbm_dist.sweeps.trial.worker import Order, Worker
from tests.fbm_dist.sweeps.conftest import STAND_IN, Make
from tests.processes import gone

Config = Callable[..., str]  # values, dots as two underlines -> the path of a trial's config


@pytest.fixture
def config(make: Make, tmp_path: Path) -> Config:
    def made(**values: Any) -> str:
        sweep = make("{optimizer.lr: {grid: [0.01]}}", "search=grid", "training.steps=4", "training.hang_timeout=20")
        runs = Runs(sweep, tmp_path / "sweep")
        return str(runs.write(0, runs.of(0, {key.replace("__", "."): value for key, value in values.items()})))

    return made


def worker(config: str, **more: Any) -> Worker:
    facts = {"number": 0, "door": str(STAND_IN), "config": config, "metric": "loss", "mode": "max", "at": "last"}
    return Worker(
        Order(**{**facts, "processes": 1, "cpus": 1, "gpus": 0, "retries": 1, "grace": 1, "parent": None, **more})
    )


def heard(one: Worker) -> list[dict[str, Any]]:
    """Everything until the end."""
    found = [one.news()]
    while not found[-1].get("done"):
        found.append(one.news())
    one.stop()
    return found


@pytest.mark.parametrize(("at", "value"), [("last", 0.25), ("best", 1.0)])
def test_each_line_is_told_and_the_end_has_the_value_that_counts(config: Config, at: str, value: float) -> None:
    *lines, end = heard(worker(config(optimizer__lr=0.01), at=at))
    told = [(line["step"], line["value"]) for line in lines if "step" in line]
    assert told == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3)), (4, 0.25)]
    assert (end["status"], end["value"], end["steps"], end["starts"]) == ("finished", value, 4, 1)


def test_a_name_that_no_line_has_is_told_at_the_first(config: Config) -> None:
    found = heard(worker(config(), metric="lss"))
    assert found[-1]["status"] == "misnamed"
    assert "the nearest is 'loss', all: loss, seconds" in found[-1]["reason"]
    assert max(line["steps"] for line in found) == 1


def test_what_is_missing_on_a_node_is_told(config: Config, tmp_path: Path) -> None:
    assert "nowhere.py is missing on node" in heard(worker(config(), door="nowhere.py"))[-1]["reason"]
    assert "folder is not visible on node" in heard(worker(str(tmp_path / "no/trial.yaml")))[-1]["reason"]


def test_one_that_hangs_and_hears_nothing_is_ended(config: Config) -> None:
    one = worker(config(run__seed=16), grace=0.5)
    while one.news()["steps"] < 1:
        pass
    pid = int((one.order.folder / "starts.txt").read_text().split()[0])
    assert not gone(pid)
    one.stop()
    assert gone(pid)


def test_a_run_without_a_finite_value_is_no_finished_trial(config: Config) -> None:
    path = config()
    folder = Path(path).parent
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": null}\n')
    (folder / "finished.json").write_text("{}")
    end = heard(worker(path))[-1]
    assert (end["status"], end["reason"]) == ("failed", "loss was no finite number in any of its lines")


def test_the_config_of_a_trial_registers_nothing_and_has_whole_paths(config: Config, tmp_path: Path) -> None:
    from fbm_dist.schema import Run

    run = load(Run, config(optimizer__lr=0.5))
    assert (run.optimizer.lr, run.tracking.register_as) == (0.5, None)
    assert run.run.folder == tmp_path / "sweep/trials/0000"
    assert run.run.name == "sweep 0000 optimizer.lr=0.5"
