"""A run that is killed again and again, beside the same run undisturbed: `python benchmarks/faults.py [--kills 20] [--seed 0]`.

A narrow FBM on two processes with ZeRO-1 by the deepspeed launcher, fp32 on the CPU, on synthetic shards. At random moments of
its start and its steps a random victim gets SIGKILL: a rank, a reader of the loader, `deepspeed.launcher.launch`, the `deepspeed`
runner, or all processes at once (a machine that goes). After each kill every other process of the session has `--patience` seconds
to end; what is still there is an orphan. Then the same command again. At the end the undisturbed run does as many steps, and every
line that was ever logged, the last checkpoint and the encoder are compared bit for bit. Prints a table, then one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the tests' data set is not installed

from fbm_dist.training.monitoring.metrics import NAME, read_lines
from tests.datasets import write_dataset

ROOT = Path(__file__).resolve().parent.parent
MARK = "FBM_SESSION"  # in the environment of every process of a session, whoever its parent is by then
Line = dict[str, Any]  # of metrics.jsonl
VICTIMS = ("rank", "reader", "launcher", "runner", "all")
START = 0.15  # share of the kills that come before the first step
ENDLESS = 1_000_000  # steps; how far the run comes is decided by its kills
MEASURED = ("time", "seconds", "clips_per_second", "data_wait", "checkpoint_stall")  # differ from run to run
SETTINGS = (
    "objective.width=0.05", "training.global_batch=4", "training.micro_batch=1", "training.log_every=1", "training.picture_every=0",
    "training.preflight=off", "schedule.decay=constant", "tracking.mlflow=false", "tracking.register_as=null",
)  # fmt: skip


@dataclass(frozen=True)
class Job:
    """What is run: data, run folder, and steps between two checkpoints."""

    data: Path
    folder: Path
    every: int

    def command(self, steps: int) -> list[str]:
        """As a user types it."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        launcher = ["deepspeed", "-q", "--num_accelerators", "2", "--master_port", port]
        paths = [f"data.path={self.data}", f"run.folder={self.folder}"]
        length = [f"training.steps={steps}", f"training.checkpoint_every={self.every}"]
        script = [str(ROOT / "launch/pretrain.py"), str(ROOT / "configs/pretrain/fbm_cpu.yaml")]
        return [*launcher, *script, *paths, *length, *SETTINGS]

    def newest(self) -> int:
        """Step of the newest checkpoint that is whole, 0 where there is none."""
        markers = self.folder.glob("checkpoints/step-*/complete.json")
        found = [(marker.parent, json.loads(marker.read_text())) for marker in markers]
        whole = [m for f, m in found if all((f / n).stat().st_size == size for n, (size, _) in m["files"].items())]
        return max((manifest["step"] for manifest in whole), default=0)

    def lines(self, since: float = 0.0) -> list[Line]:
        """Of metrics.jsonl, those written after `since`: a session keeps the lines of the ones before it."""
        return [line for line in read_lines(self.folder / NAME) if line["time"] >= since]


class Session:
    """One start of a job and all the processes that come of it."""

    def __init__(self, job: Job, steps: int, log: Path) -> None:
        self.job, self.log = job, log
        self.mark = uuid.uuid4().hex
        self.started = time.time()
        variables = {**os.environ, MARK: self.mark, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
        variables["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{variables['PATH']}"
        command, errors = job.command(steps), subprocess.STDOUT
        with log.open("w") as file:
            self.runner = subprocess.Popen(command, stdout=file, stderr=errors, env=variables, start_new_session=True)

    def processes(self) -> list[psutil.Process]:
        """Those that live, found by their environment: neither parents nor process groups are left to go by after a kill."""
        self.runner.poll()  # reaped, if it has ended
        found = []
        for process in psutil.process_iter(["cmdline", "ppid"]):
            with suppress(psutil.Error):  # gone meanwhile, or a zombie
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def victims(self, kind: str) -> list[psutil.Process]:
        """Who gets the signal; empty where there is no such process (yet)."""
        alive = {process.pid: process for process in self.processes()}
        words = {pid: " ".join(process.info["cmdline"] or ()) for pid, process in alive.items()}
        parents = {pid: process.info["ppid"] for pid, process in alive.items()}
        launchers = {pid for pid in alive if "deepspeed.launcher.launch" in words[pid]}
        ranks = {pid for pid in alive if "launch/pretrain.py" in words[pid] and parents[pid] in launchers}
        readers = {pid for pid in alive if parents[pid] in ranks and "resource_tracker" not in words[pid]}
        runner = {self.runner.pid} & alive.keys()
        chosen = {"rank": ranks, "reader": readers, "launcher": launchers, "runner": runner, "all": set(alive)}[kind]
        return [alive[pid] for pid in sorted(chosen)]

    def wait(self, seconds: float) -> list[psutil.Process]:
        """Until all processes have ended, at most so long; those that have not."""
        deadline = time.monotonic() + seconds
        empty = 0
        while empty < 2 and time.monotonic() < deadline:  # twice: a process that just begins may escape one look
            alive = self.processes()
            empty = 0 if alive else empty + 1
            time.sleep(0.1)
        return alive

    def step(self) -> int:
        """The last one that this session has logged, 0 where there is none."""
        return max((line["step"] for line in self.job.lines(self.started)), default=0)

    def resumed(self) -> int | None:
        """The step that it went on from: every one is logged. None where it did not come to do one."""
        return min((line["step"] - 1 for line in self.job.lines(self.started)), default=None)

    def end(self) -> None:
        """No process is left behind, whatever happened."""
        while alive := self.processes():
            kill(alive)


@dataclass(frozen=True)
class Kill:
    """What one of them did."""

    victim: str
    newest_before: int
    resumed: int | None
    last: int  # step that was logged, in this session or before
    newest: int
    orphans: int
    seconds: float  # until the last process had gone

    def lost(self, every: int) -> int:
        """Steps that a resume left out, or checkpoints do not cover as promised (one may be on its way to the disk)."""
        skipped = abs(self.resumed - self.newest_before) if self.resumed is not None else 0
        return skipped + max(0, self.newest_before - self.newest) + max(0, self.last - self.newest - 2 * every)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=5, help="steps between two checkpoints")
    parser.add_argument("--patience", type=float, default=40.0, help="seconds in which a session must end after a kill")
    parser.add_argument("--folder", type=Path, help="keep the runs and their logs here; default: a temporary folder")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # leaves no session behind
    with tempfile.TemporaryDirectory() as temporary:
        folder = (chosen.folder or Path(temporary)).absolute()
        if folder.exists() and any(folder.iterdir()):
            parser.error(f"{folder} is not empty")
        os.environ["FBM_CACHE"] = str(folder / "cache")
        measure(folder, chosen.kills, random.Random(chosen.seed), chosen.every, chosen.patience)


def measure(folder: Path, kills: int, rng: random.Random, every: int, patience: float) -> None:
    """Both runs, the table and the line of JSON."""
    began = time.monotonic()
    data = write_dataset(folder / "data", clips=16)
    job = Job(data, folder / "killed", every)
    rows, logged = disturbed(job, folder, kills, rng, patience)
    steps = max(job.newest(), *(line["step"] for line in logged), 1) + 2 * every
    logged += finish(job, steps, folder / "killed-last.log")
    reference = Job(data, folder / "reference", every)
    expected = {line["step"]: numbers(line) for line in finish(reference, steps, folder / "reference.log")}
    differing = sum(numbers(line) != expected.get(line["step"]) for line in logged)
    files = different_files(job, reference)
    whole = [line["step"] for line in job.lines()] == list(range(1, steps + 1))
    show(rows, every)
    print(
        f"{steps} steps; {len(logged)} logged lines, {differing} of them differ; files that differ: {files or 'none'}"
    )
    figures = {
        "kills": len(rows),
        "lost_steps_beyond_checkpoint": sum(row.lost(every) for row in rows),
        "bitwise_equal": not differing and not files and whole,
        "orphans": sum(row.orphans for row in rows),
        "victims": dict(Counter(row.victim for row in rows)),
        "steps": steps,
        "most_steps_done_again": max((row.last - row.newest for row in rows), default=0),
        "longest_end": round(max((row.seconds for row in rows), default=0.0), 1),
        "seconds": round(time.monotonic() - began),
    }
    print(json.dumps(figures))


def disturbed(job: Job, folder: Path, kills: int, rng: random.Random, patience: float) -> tuple[list[Kill], list[Line]]:
    """The kills, and every line that was logged, those too whose steps were done again."""
    rows: list[Kill] = []
    logged: list[Line] = []
    for number in range(kills):
        before = max((line["step"] for line in job.lines()), default=0)
        session = Session(job, ENDLESS, folder / f"killed-{number + 1:03d}.log")
        try:
            rows.append(strike(session, VICTIMS[number % len(VICTIMS)], before, rng, patience))
        finally:
            session.end()
        logged += job.lines(session.started)
        print(f"kill {number + 1}/{kills}: {rows[-1]}", file=sys.stderr, flush=True)
    return rows, logged


def strike(session: Session, kind: str, before: int, rng: random.Random, patience: float) -> Kill:
    """Wait for the moment, kill, and look at what becomes of the others."""
    job, newest_before = session.job, session.job.newest()
    if rng.random() < START:
        time.sleep(rng.uniform(0.5, 12))
    else:
        goal = newest_before + rng.randint(1, 2 * job.every + 2)
        while session.step() < goal:
            if session.runner.poll() is not None:
                told = session.log.read_text(errors="replace")[-3000:]
                raise SystemExit(f"error: the session ended by itself (exit code {session.runner.returncode}):\n{told}")
            time.sleep(0.01)
        times = [line["time"] for line in job.lines(session.started)]
        time.sleep(rng.uniform(0, (times[-1] - times[0]) / max(1, len(times) - 1) + 0.02))  # anywhere within a step
    # The first of them that there is by now.
    found = {k: session.victims(k) for k in (kind, "rank", "launcher", "runner")}
    hit = next(k for k, victims in found.items() if victims)
    kill(found[hit] if hit == "all" else [rng.choice(found[hit])])
    struck = time.monotonic()
    alive = session.wait(patience)
    seconds = time.monotonic() - struck
    session.end()
    return Kill(hit, newest_before, session.resumed(), session.step() or before, job.newest(), len(alive), seconds)


def kill(processes: list[psutil.Process]) -> None:
    """SIGKILL, by process id."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)


def finish(job: Job, steps: int, log: Path) -> list[Line]:
    """Run the job to its end; the lines that this session logged."""
    session = Session(job, steps, log)
    try:
        code = session.runner.wait()
    finally:
        session.wait(10)
        session.end()
    if code or not (job.folder / "finished.json").exists():
        raise SystemExit(f"error: the run did not come to its end (exit code {code}):\n{log.read_text()[-3000:]}")
    return job.lines(session.started)


def numbers(line: Line) -> Line:
    """What a line says of the training itself, not of the time that it took or the machine. JSON keeps every bit of a float."""
    return {key: value for key, value in line.items() if key not in MEASURED and not key.startswith("system/")}


def different_files(one: Job, other: Job) -> list[str]:
    """Weights and optimizer state of the last checkpoint, and the encoder, that are not the same bytes in both runs."""
    patterns = (f"checkpoints/step-{one.newest():08d}/**/*.safetensors", "encoder/**/*.safetensors")
    jobs = (one, other)
    names = {p.relative_to(job.folder) for job in jobs for pattern in patterns for p in job.folder.glob(pattern)}
    if len(names) < 2:
        raise SystemExit(f"error: no weights to compare below {one.folder}")
    found = {n: [p.read_bytes() if (p := job.folder / n).exists() else None for job in jobs] for n in names}
    return sorted(str(name) for name, (here, there) in found.items() if here != there)


def show(rows: list[Kill], every: int) -> None:
    """The table for people."""
    table = Table("kill", "victim", "resumed from", "last step", "newest checkpoint", "lost", "ended after", "orphans")
    for number, row in enumerate(rows, start=1):
        began = "-" if row.resumed is None else str(row.resumed)
        cells = (number, row.victim, began, row.last, row.newest, row.lost(every), f"{row.seconds:.1f} s", row.orphans)
        table.add_row(*map(str, cells))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
