"""A trial's processes: saved and gone when they are stopped, when their worker dies, and when they do not listen; and what ends mean."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from fbm_dist.sweeps.trial.process import End, Process, judge, last_error
from fbm_dist.sweeps.trial.worker import Lines, Order, command, environment
from tests.processes import gone

# Notes its own and a child's process; at SIGTERM it saves for a moment and ends with 75, while its child hears nothing.
PROGRAM = """
import os, signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(300)"])
def heard(number, frame):
    time.sleep(0.3)
    open("saved", "w").close()
    sys.exit(75)
signal.signal(signal.SIGTERM, heard if sys.argv[1] == "polite" else signal.SIG_IGN)
open("pids.new", "w").write(f"{os.getpid()} {child.pid}")
os.rename("pids.new", "pids")
if sys.argv[1] == "leaves":
    print("a line", flush=True)
    sys.exit(3)
time.sleep(300)
"""


def wait_for(true: Callable[[], bool], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def started(folder: Path, manner: str, grace: float = 1.0) -> tuple[Process, list[int]]:
    program = [sys.executable, "-c", f"import os; os.chdir({str(folder)!r})\n{PROGRAM}", manner]
    process = Process(program, folder, dict(os.environ), grace)
    wait_for((folder / "pids").exists)
    return process, [int(pid) for pid in (folder / "pids").read_text().split()]


def test_a_polite_process_saves_itself_and_takes_its_children_along(tmp_path: Path) -> None:
    process, pids = started(tmp_path, "polite", grace=60)
    assert process.code() is None
    assert process.stop() == 75
    assert (tmp_path / "saved").exists()
    assert all(gone(pid) for pid in pids)
    process.close()


def test_one_that_does_not_listen_is_killed_after_its_grace(tmp_path: Path) -> None:
    process, pids = started(tmp_path, "deaf", grace=0.3)
    assert process.stop() == 128 + signal.SIGKILL
    assert all(gone(pid) for pid in pids)
    process.close()


def test_what_a_process_leaves_behind_is_ended(tmp_path: Path) -> None:
    process, pids = started(tmp_path, "leaves")
    assert process.code(30) == 3
    assert all(gone(pid) for pid in pids)
    assert process.tail() == "a line\n"
    process.close()


@pytest.mark.parametrize("attendant_dies", [False, True])
def test_nothing_outlives_a_killed_worker(attendant_dies: bool, tmp_path: Path) -> None:
    """The worker is killed -9; or the attendant itself is: then the process hears of it, and the next start waits for its end."""
    (tmp_path / "program.py").write_text(PROGRAM)
    worker = f"""
import os, sys, time
from pathlib import Path
from fbm_dist.sweeps.trial.process import Process
os.chdir({str(tmp_path)!r})
process = Process([sys.executable, "program.py", "polite"], Path.cwd(), dict(os.environ), 2.0)
time.sleep(300)
"""
    root = str(Path(__file__).parents[3])
    doomed = subprocess.Popen([sys.executable, "-c", worker], env={**os.environ, "PYTHONPATH": root})
    try:
        wait_for((tmp_path / "pids").exists)
        pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
        attendant = psutil.Process(pids[0]).parent()
        assert attendant is not None
        assert "attendant.py" in " ".join(attendant.cmdline())
        if attendant_dies:
            attendant.kill()
            second = Process([sys.executable, "-c", "print(1)"], tmp_path, dict(os.environ), 1.0)
            assert second.code(20) == 0
            assert (tmp_path / "saved").exists(), "the second began when the first had saved itself"
            second.close()
            os.kill(pids[1], signal.SIGKILL)  # a child that hears nothing and has lost its attendant
        else:
            doomed.kill()
            doomed.wait()
            wait_for(lambda: all(gone(pid) for pid in pids))
            assert (tmp_path / "saved").exists()
    finally:
        doomed.kill()
        doomed.wait()


@pytest.mark.parametrize(
    ("code", "finished", "tail", "end"),
    [
        (0, True, "", End("finished")),
        (0, False, "", End("again", "its launcher was killed")),
        (75, False, "", End("again", "its process was stopped from outside")),
        (76, False, "error: rank 1 on a hangs\n", End("again", "rank 1 on a hangs")),
        (137, False, "", End("again", "its process was killed by SIGKILL (out of memory?)")),
        (247, False, "", End("again", "its process was killed by 247")),
        (2, False, "error: x.yaml: unknown key 'a'\n", End("failed", "x.yaml: unknown key 'a'")),
        (1, False, "error: step 9: 10 x gradient not finite\n", End("diverged", "step 9: 10 x gradient not finite")),
        (1, False, "Traceback\n  File x\ntorch.OutOfMemoryError: CUDA out\n", End("failed", "torch.OutOfMemoryError: CUDA out")),
        (1, False, "RuntimeError: x EADDRINUSE y\n", End("again", "RuntimeError: x EADDRINUSE y")),
        (1, False, "nothing to see\n", End("failed", "exit code 1, see its log")),
    ],
)  # fmt: skip
def test_what_an_end_means(code: int, finished: bool, tail: str, end: End) -> None:
    assert judge(code, finished, tail) == end


def test_the_runs_own_error_comes_before_what_its_launcher_says() -> None:
    tail = "error: nowhere: no such folder\n[2026] [ERROR] [launch.py] exits with return code = 1\nSystemExit: 1\n"
    assert last_error(tail) == "nowhere: no such folder"


def test_each_step_is_heard_once_also_where_a_run_does_steps_anew(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = Lines(path)
    assert lines.next() is None
    path.write_text("".join(f'{{"step": {n}, "loss": {n}}}\n' for n in range(1, 6)))
    heard = [line["step"] for line in iter(lines.next, None)]
    fresh = tmp_path / "fresh"
    fresh.write_text("".join(f'{{"step": {n}, "loss": 0}}\n' for n in range(1, 4)))
    fresh.replace(path)  # back to the checkpoint of step 3
    assert lines.next() is None
    with path.open("a") as file:
        file.write("".join(f'{{"step": {n}, "loss": 0}}\n' for n in range(4, 8)) + '{"step": 8, "lo')
    heard += [line["step"] for line in iter(lines.next, None)]
    assert heard == [1, 2, 3, 4, 5, 6, 7]


def order(**more: object) -> Order:
    facts = {
        "number": 0,
        "door": "launch/pretrain.py",
        "config": "x.yaml",
        "metric": "loss",
        "mode": "min",
        "at": "last",
    }
    return Order(**{**facts, "processes": 1, "cpus": 4, "gpus": 0, "retries": 0, "grace": 1, "parent": None, **more})  # type: ignore[arg-type]


def test_several_processes_start_by_the_launcher_on_the_gpus_that_ray_gave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    monkeypatch.setenv("RANK", "3")
    assert command(order()) == [sys.executable, "launch/pretrain.py", "x.yaml"]
    two = command(order(processes=2, gpus=2))
    assert two[1:3] == ["-m", "deepspeed.launcher.runner"]
    assert not any("num" in word for word in two), "told how many, the launcher would take the node's first GPUs"
    assert two[-2:] == ["launch/pretrain.py", "x.yaml"]
    assert command(order(processes=2))[5:7] == ["--num_accelerators", "2"]
    ports = {command(order(processes=2))[8] for _ in range(5)}
    assert len(ports) > 1, "a free one each time"
    given = environment(order(processes=2, gpus=2, parent="p"))
    assert (given["CUDA_VISIBLE_DEVICES"], given["OMP_NUM_THREADS"], given["FBM_PARENT_RUN"]) == ("2,5", "2", "p")
    assert given["FBM_CORES"] == "4", "its readers are as many as its cores let them be"
    assert "RANK" not in given
    assert environment(order())["CUDA_VISIBLE_DEVICES"] == ""
