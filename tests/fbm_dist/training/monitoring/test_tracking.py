"""MLflow gets everything once, whenever it can be reached; training never waits for it."""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.tracking import MlflowClient
from PIL import Image

from fbm_dist.registry.client import connect, experiment_id
from fbm_dist.training.monitoring.metrics import MetricsFile, merge, read_lines, read_on
from fbm_dist.training.monitoring.progress import Console, duration
from fbm_dist.training.monitoring.tracking import Tracker, flatten, unsent


class Unreliable(MlflowClient):
    """The real client on a real database, behind a line that can be cut."""

    cut = False

    def log_batch(self, *arguments: Any, **named: Any) -> Any:
        if self.cut:
            raise ConnectionError("line cut")
        return super().log_batch(*arguments, **named)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    address = f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"
    connect(address)
    return address


@pytest.fixture
def client(address: str) -> Unreliable:
    return Unreliable(tracking_uri=address)


def tracker(client: MlflowClient, folder: Path, told: list[str] | None = None) -> Tracker:
    say = (told if told is not None else []).append
    return Tracker(client, experiment_id(client, "tests"), folder, "a run", say, pause=0.01)


def write(folder: Path, steps: range, start: int = 0) -> None:
    lines = MetricsFile(folder, start)
    for step in steps:
        lines.write(step, {"loss": 1.0 / step, "lr": 0.1})
    lines.close()


def sent(client: MlflowClient, run_id: str) -> list[tuple[int, float]]:
    return sorted((m.step, m.value) for m in client.get_metric_history(run_id, "loss"))


def test_lines_and_pictures_arrive_once(client: Unreliable, tmp_path: Path) -> None:
    first = tracker(client, tmp_path)
    first.describe({"a.b": 1, "long": "x" * 9000}, {"data.digest": "d0"})
    write(tmp_path, range(1, 4))
    (tmp_path / "pictures").mkdir()
    Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(tmp_path / "pictures/grid-00000003.png")
    first.wake()
    assert first.close("FINISHED") == 0
    # The next session goes on in the same MLflow run, with what is new alone.
    write(tmp_path, range(4, 6), start=3)
    second = tracker(client, tmp_path)
    assert second.run_id == first.run_id
    assert client.get_run(first.run_id).info.status == "RUNNING"
    second.describe({"a.b": 2, "new": 3}, {})
    assert second.close("KILLED") == 0
    run = client.get_run(first.run_id)
    assert sent(client, first.run_id) == [(step, 1.0 / step) for step in range(1, 6)]
    assert [f.path for f in client.list_artifacts(first.run_id, "pictures")] == ["pictures/grid-00000003.png"]
    assert run.data.params == {"a.b": "1", "long": "x" * 5000, "new": "3"}
    assert run.data.tags["data.digest"] == "d0"
    assert run.data.tags["changed.a.b"] == "2"
    assert run.info.status == "KILLED"


def test_what_could_not_be_sent_waits_and_goes_out_later(client: Unreliable, tmp_path: Path) -> None:
    told: list[str] = []
    first = tracker(client, tmp_path, told)
    client.cut = True
    write(tmp_path, range(1, 40))
    first.wake()
    assert first.close("FINISHED") == 39
    assert unsent(tmp_path) == 39
    assert "line cut" in told[0]
    assert len([text for text in told if "line cut" in text]) == 1, "said once, not at every try"
    assert "39 lines and pictures wait" in told[-1]
    client.cut = False
    second = tracker(client, tmp_path)
    assert second.close("FINISHED") == 0
    assert unsent(tmp_path) == 0
    assert [step for step, _ in sent(client, first.run_id)] == list(range(1, 40))


def test_it_recovers_within_a_session(client: Unreliable, tmp_path: Path) -> None:
    told: list[str] = []
    back = threading.Event()
    one = Tracker(
        client,
        experiment_id(client, "tests"),
        tmp_path,
        "a run",
        lambda text: (told.append(text), back.set() if "answers again" in text else None),  # type: ignore[func-returns-value, arg-type, return-value]
        pause=0.01,
    )
    client.cut = True
    write(tmp_path, range(1, 3))
    one.wake()
    while not told:
        back.wait(0.01)
    client.cut = False
    assert back.wait(20)
    assert one.close("FINISHED") == 0
    assert [step for step, _ in sent(client, one.run_id)] == [1, 2]


def test_a_hanging_server_holds_up_nobody(client: Unreliable, tmp_path: Path) -> None:
    one = tracker(client, tmp_path)
    hang = threading.Event()
    client.log_batch = lambda *arguments, **named: hang.wait(60)  # type: ignore[method-assign, assignment]
    write(tmp_path, range(1, 3))
    one.wake()
    assert one.close("FINISHED", patience=0.1) == 2
    hang.set()


def test_steps_that_are_done_again_are_not_sent_again(client: Unreliable, tmp_path: Path) -> None:
    first = tracker(client, tmp_path)
    write(tmp_path, range(1, 6))
    assert first.close("FAILED") == 0
    write(tmp_path, range(3, 8), start=2)  # resumed from a checkpoint of step 2
    second = tracker(client, tmp_path)
    assert second.close("FINISHED") == 0
    assert [step for step, _ in sent(client, first.run_id)] == list(range(1, 8))


def test_another_server_gets_the_whole_run(client: Unreliable, tmp_path: Path) -> None:
    first = tracker(client, tmp_path)
    write(tmp_path, range(1, 4))
    assert first.close("FINISHED") == 0
    told: list[str] = []
    other = f"sqlite:///{tmp_path / 'other.db'}"
    second = tracker(connect(other), tmp_path, told)
    assert second.close("FINISHED") == 0
    assert "another address" in told[0]
    assert [step for step, _ in sent(MlflowClient(other), second.run_id)] == [1, 2, 3]


def test_a_resumed_log_drops_what_is_done_again_and_torn_lines(tmp_path: Path) -> None:
    write(tmp_path, range(1, 6))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')  # killed while writing
    again = MetricsFile(tmp_path, 3)
    assert again.dropped == 2
    again.write(4, {"loss": math.nan, "lr": 0.5})
    again.close()
    lines = read_lines(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert lines[-1]["loss"] is None
    for text in (tmp_path / "metrics.jsonl").read_text().splitlines():
        json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_reading_on_takes_whole_lines_only(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"ste')
    lines, offset = read_on(path, 0)
    assert [line["step"] for line in lines] == [1]
    path.write_text('{"step": 1}\n{"step": 2}\n')
    assert [line["step"] for line in read_on(path, offset)[0]] == [2]


def test_merge_is_the_mean_of_those_who_have_it() -> None:
    assert merge([{"a": 1.0, "b": 4.0}, {"a": 3.0}]) == {"a": 2.0, "b": 4.0}
    assert math.isnan(merge([{"a": 1.0}, {"a": math.nan}])["a"])


def test_flatten() -> None:
    assert flatten({"a": {"b": 1, "c": {"d": [2]}}, "e": None}) == {"a.b": 1, "a.c.d": [2], "e": None}


def test_console_shows_terms_speed_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    metrics = {
        "loss": 0.5,
        "rec": 0.25,
        "lr": 1e-3,
        "clips_per_second": 35.06,
        "data_wait": 0.031,
        "skipped": 2.0,
        "seconds": 1.0,
    }
    with Console(10, 0) as console:
        console.show(5, metrics)
    line = capsys.readouterr().out
    assert "step 5/10  loss 0.5 rec 0.25  lr 1.0e-03  35.1 clips/s  data 3%  skipped 2" in line
    assert line.strip().endswith("left")
    assert duration(3725.0) == "1:02:05"
