"""A job that crashes, hangs or raises costs that job; the others are done, and no process stays behind."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from data_tools.workers import Crew, Done, Failed, Progressed


def act(job: str, beat: Callable[[int], None]) -> str:
    """What the jobs of these tests do, by name."""
    kind, _, value = job.partition(" ")
    if kind == "segfault":
        ctypes.string_at(0)
    elif kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "exit":
        os._exit(3)
    elif kind == "hang":
        time.sleep(600)
    elif kind == "slow":
        for _ in range(6):
            time.sleep(0.5)
            beat(10)
    elif kind == "mutter":
        os.write(2, b"a warning\n")
    elif kind == "croak":
        os.write(2, b"last words\n")
        os._exit(4)
    elif kind == "raise":
        raise KeyError("a defect")
    elif kind == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "disk/file")
    elif kind == "missing":
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "gone")
    return f"{value} by {os.getpid()}"


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    (tmp_path / "jobs_of_test.py").write_text(Path(__file__).read_text())
    monkeypatch.syspath_prepend(str(tmp_path))

    def start(jobs: Sequence[str], workers: int = 2, time_limit: float = 60.0) -> dict[str, Any]:
        ends: dict[str, Any] = {}
        with Crew(workers, time_limit) as crew:
            for event in crew.run("jobs_of_test:act", jobs):
                if not isinstance(event, Progressed):
                    assert jobs[event.job] not in ends, "a job ends once"
                    ends[jobs[event.job]] = event
        return ends

    return start


def test_the_dead_cost_only_their_own_jobs(work: Callable[..., dict[str, Any]]) -> None:
    before = {p.pid for p in psutil.Process().children(recursive=True)}
    jobs = ["good 1", "segfault", "good 2", "killed", "exit", "raise", "missing", "good 3"]
    ends = work(jobs)
    assert set(ends) == set(jobs)
    reasons = {job: end.reason for job, end in ends.items() if isinstance(end, Failed)}
    assert reasons == {
        "segfault": "the process died (SIGSEGV)",
        "killed": "the process died (SIGKILL)",
        "exit": "the process died (exit status 3)",
        "raise": "KeyError: 'a defect'",
        "missing": "FileNotFoundError: [Errno 2] No such file or directory: 'gone'",
    }
    assert [end.result.split()[0] for end in ends.values() if isinstance(end, Done)] != []
    assert {p.pid for p in psutil.Process().children(recursive=True)} == before, "no process stays behind"


def test_silence_is_given_up_and_signs_of_life_are_not(work: Callable[..., dict[str, Any]]) -> None:
    ends = work(["hang", "slow 1"], time_limit=2.0)
    assert ends["hang"].reason == "no progress for 2 s: given up"
    assert isinstance(ends["slow 1"], Done)


def test_progress_adds_up(tmp_path: Path, work: Callable[..., dict[str, Any]]) -> None:
    with Crew(1, 60.0) as crew:
        amounts = [e.amount for e in crew.run("jobs_of_test:act", ["slow"]) if isinstance(e, Progressed)]
        assert sum(amounts) == 60
        assert len(amounts) > 2
        pids = {
            e.result.split()[-1]
            for _ in range(2)
            for e in crew.run("jobs_of_test:act", ["good 1"])
            if isinstance(e, Done)
        }
        assert len(pids) == 1, "the processes are kept from one stage to the next"


def test_a_full_disk_stops_everything(work: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(OSError, match="No space left") as caught:
        work(["full", "good 1"], workers=1)
    assert caught.value.filename == "disk/file"


def test_workers_die_with_their_parent(tmp_path: Path) -> None:
    (tmp_path / "jobs_of_test.py").write_text(Path(__file__).read_text())
    code = "from data_tools.workers import Crew\nfor event in Crew(2, 99.0).run('jobs_of_test:act', ['hang', 'slow']): pass"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])}
    parent = psutil.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while len(children := parent.children(recursive=True)) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(children) == 2
    parent.kill()
    parent.wait()

    def alive() -> list[psutil.Process]:
        # where nobody reaps orphans the dead stay as zombies
        return [c for c in children if c.is_running() and c.status() != psutil.STATUS_ZOMBIE]

    deadline = time.monotonic() + 20
    while (left := alive()) and time.monotonic() < deadline:
        time.sleep(0.1)
    for process in left:
        process.kill()
    assert not left


def test_a_process_that_dies_idle_costs_no_job(work: Callable[..., dict[str, Any]]) -> None:
    with Crew(1, 60.0) as crew:
        assert [type(e) for e in crew.run("jobs_of_test:act", ["good 1"]) if not isinstance(e, Progressed)] == [Done]
        (worker,) = crew._workers
        worker.process.kill()
        worker.process.wait()
        ends = [e for e in crew.run("jobs_of_test:act", ["good 2", "good 3"]) if not isinstance(e, Progressed)]
        assert [(type(e), e.job) for e in ends] == [(Done, 0), (Done, 1)], "each job ends once, and well"


def test_the_last_words_are_those_of_the_job_that_died(work: Callable[..., dict[str, Any]]) -> None:
    ends = work(["mutter", "croak"], workers=1)
    assert ends["croak"].reason == "the process died (exit status 4): last words"
