"""A job that crashes, hangs or raises costs that job; the others are done, and no process stays behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from data_tools.execution.processes import Crew, Done, Failed, Progressed
from tests.processes import gone

ROOT = Path(__file__).parents[3]
ACT = "acts:act"  # a module beside this one


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))

    def start(jobs: Sequence[str], workers: int = 2, time_limit: float = 60.0, **more: Any) -> dict[str, Any]:
        ends: dict[str, Any] = {}
        follow = more.pop("follow", None)
        with Crew(workers, time_limit, **more) as crew:
            for event in crew.run(ACT, jobs, follow):
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
    assert {p.pid for p in psutil.Process().children(recursive=True)} <= before, "no process stays behind"


def test_silence_is_given_up_and_signs_of_life_are_not(work: Callable[..., dict[str, Any]]) -> None:
    ends = work(["hang", "slow 1"], time_limit=2.0)
    assert ends["hang"].reason == "no progress for 2 s: given up"
    assert isinstance(ends["slow 1"], Done)


def test_progress_adds_up(work: Callable[..., dict[str, Any]]) -> None:
    with Crew(1, 60.0) as crew:
        amounts = [e.amount for e in crew.run(ACT, ["slow"]) if isinstance(e, Progressed)]
        assert sum(amounts) == 60
        assert len(amounts) > 2
        pids = {e.result.split()[-1] for _ in range(2) for e in crew.run(ACT, ["good 1"]) if isinstance(e, Done)}
        assert len(pids) == 1, "the processes are kept from one stage to the next"


def test_a_full_disk_stops_everything(work: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(OSError, match="No space left") as caught:
        work(["full", "good 1"], workers=1)
    assert caught.value.filename == "disk/file"


def test_workers_die_with_their_parent(tmp_path: Path) -> None:
    """Also one that never lets go of the interpreter lock, so that no thread of its own can look."""
    code = (
        "from data_tools.execution.processes import Crew\n"
        f"for event in Crew(2, 99.0).run('{ACT}', ['hold', 'endless {tmp_path}/begun']): pass"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(ROOT)])}
    parent = psutil.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (tmp_path / "begun").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    children = parent.children(recursive=True)
    assert len(children) == 2
    parent.kill()
    parent.wait()

    def alive() -> list[psutil.Process]:
        # where nobody reaps orphans the dead stay as zombies
        return [c for c in children if not gone(c.pid)]

    deadline = time.monotonic() + 20
    while (left := alive()) and time.monotonic() < deadline:
        time.sleep(0.1)
    for process in left:
        process.kill()
    assert not left


def test_a_process_that_dies_idle_costs_no_job(work: Callable[..., dict[str, Any]]) -> None:
    with Crew(1, 60.0) as crew:
        assert [type(e) for e in crew.run(ACT, ["good 1"]) if not isinstance(e, Progressed)] == [Done]
        (worker,) = crew._workers
        worker.process.kill()
        worker.process.wait()
        ends = [e for e in crew.run(ACT, ["good 2", "good 3"]) if not isinstance(e, Progressed)]
        assert [(type(e), e.job) for e in ends] == [(Done, 0), (Done, 1)], "each job ends once, and well"


def test_the_last_words_are_those_of_the_job_that_died(work: Callable[..., dict[str, Any]]) -> None:
    ends = work(["mutter", "croak"], workers=1)
    assert ends["croak"].reason == "the process died (exit status 4): last words"


def test_the_same_worker_goes_on_with_what_follows(work: Callable[..., dict[str, Any]]) -> None:
    asked: list[tuple[int, str]] = []

    def follow(job: int, result: str) -> tuple[str, str] | None:
        asked.append((job, result))
        read, _, process = result.partition(" by ")
        return (ACT, read.replace("_", " ") + f" {process}") if read else None

    jobs = ["read echo_a", "echo", "read echo_b", "raise", "read segfault_", "read raise_", "read nap_0.1"]
    ends = work(jobs, follow=follow)
    assert set(ends) == set(jobs)
    for job, value in ("read echo_a", "a"), ("read echo_b", "b"), ("read nap_0.1", "0.1"):
        read, made = ends[job].result.split(" by ")
        assert read == f"{value} {made}", "both parts are done by one process"
    assert isinstance(ends["echo"], Done), "nothing follows"
    assert ends["raise"].reason == ends["read raise_"].reason == "KeyError: 'a defect'"
    assert ends["read segfault_"].reason == "the process died (SIGSEGV)"
    assert sorted(job for job, _ in asked) == [0, 1, 2, 4, 5, 6], "once for each that returned"


def test_jobs_are_taken_as_workers_become_free(work: Callable[..., dict[str, Any]]) -> None:
    taken, done = 0, 0

    def many() -> Iterator[str]:
        nonlocal taken
        for number in range(1000):
            taken += 1
            yield f"echo {number}"

    with Crew(2, 60.0) as crew:
        for event in crew.run(ACT, many()):
            if isinstance(event, Done):
                assert event.result.startswith(f"{event.job} "), "jobs are counted in their order"
                done += 1
                assert taken <= done + 3
    assert done == 1000


def test_a_job_has_its_time(work: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    endless = f"endless {tmp_path}/begun"  # it gives signs of life
    ends = work([endless, "nap 0.1", "nap 0.2"], workers=1, job_limit=1.5)
    assert ends[endless].reason == "took longer than film_time_limit = 1.5 s: given up"
    assert all(isinstance(ends[job], Done) for job in ("nap 0.1", "nap 0.2"))


def test_a_job_has_its_memory(work: Callable[..., dict[str, Any]]) -> None:
    ends = work(["grow 700", "leak 300", "grow 300"], workers=1, memory_limit=0.5)
    assert ends["grow 700"].reason == "needed more than memory_limit = 0.5 GiB: given up"
    assert isinstance(ends["leak 300"], Done)
    assert isinstance(ends["grow 300"], Done), "what an earlier job left behind is not its fault"


def test_a_run_that_is_left_leaves_no_job_to_the_next(work: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    with Crew(1, 60.0) as crew:
        for event in crew.run(ACT, [f"endless {tmp_path}/begun"]):
            assert isinstance(event, Progressed)
            break
        ends = [e for e in crew.run(ACT, ["echo a", "echo b"]) if not isinstance(e, Progressed)]
        assert [e.result.split()[0] for e in ends if isinstance(e, Done)] == ["a", "b"]


def test_silence_is_the_workers_not_the_callers(work: Callable[..., dict[str, Any]]) -> None:
    with Crew(2, 1.0, job_limit=1.5) as crew:
        assert len(list(crew.run(ACT, ["nap 0.4", "nap 0.4"]))) >= 2  # both are up
        ends = []
        for event in crew.run(ACT, ["nap 0", "nap 0.5"]):
            if not isinstance(event, Progressed):
                ends.append(event)
                time.sleep(2 if len(ends) == 1 else 0)
    assert [type(e) for e in ends] == [Done, Done]


def test_a_process_that_somebody_else_kills_costs_no_job(tmp_path: Path, work: Callable[..., dict[str, Any]]) -> None:
    """By the kernel that lacks memory, or a batch system: a job is at fault only when it happens again and again."""
    ends = work([f"killed-once {tmp_path / 'file'}", "echo a", "killed"])
    assert isinstance(ends[f"killed-once {tmp_path / 'file'}"], Done)
    assert ends["killed"].reason == "the process died (SIGKILL)"


def test_workers_have_numbers_that_those_who_take_their_place_take_over(work: Callable[..., dict[str, Any]]) -> None:
    with Crew(3, 60.0) as crew:
        for _ in range(2):
            events = list(crew.run(ACT, ["environment DATA_TOOLS_WORKER"] * 3))
            numbers = {event.result.split()[0] for event in events if isinstance(event, Done)}
            assert numbers == {"0", "1", "2"}
            assert any(isinstance(event, Failed) for event in crew.run(ACT, ["segfault"]))
