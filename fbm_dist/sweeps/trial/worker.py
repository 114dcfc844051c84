"""What a trial does on its node: the ordinary launch of a pretraining in a process of its own, reported line by line. Imports no Ray.

The run knows nothing of the sweep: killed, out of memory or diverged, it takes nobody with it, and to go on is its ordinary resume.
"""

from __future__ import annotations

import math
import os
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fbm_dist.data.machine import CORES
from fbm_dist.sweeps.metric import check_metric, is_finite
from fbm_dist.sweeps.trial.process import End, Process, judge
from fbm_dist.training.monitoring.metrics import NAME, read_on

BEAT = 2.0  # seconds after which a worker answers, news or not: Tune can then stop it
FINISHED = "finished.json"
PAUSE = 1.0  # seconds before another try


@dataclass(frozen=True)
class Order:
    """What a worker is told, in plain values.

    Attributes:
        door: launch/pretrain.py.
        config: the trial's run, in its folder.
        metric, mode, at: see `fbm_dist.sweeps.config.Metric`.
        parent: MLflow run of the sweep.
    """

    number: int
    door: str
    config: str
    metric: str
    mode: str
    at: str
    processes: int
    cpus: float
    gpus: float
    retries: int
    grace: float
    parent: str | None

    @property
    def folder(self) -> Path:
        """The trial's run folder."""
        return Path(self.config).parent


class Worker:
    """One trial on one node."""

    def __init__(self, order: Order) -> None:
        """Start its process, which goes on from its checkpoint if it has one."""
        self.order = order
        self.lines = Lines(self.order.folder / NAME)
        self.starts, self.best, self.last = 0, math.nan, math.nan
        self.step_number, self.seconds = 0, 0.0
        self.process: Process | None = None
        self.over: End | None = None
        if not Path(self.order.config).exists():
            self.over = End("failed", f"the sweep's folder is not visible on node {socket.gethostname()}")
        elif not Path(self.order.door).exists():
            self.over = End("failed", f"{self.order.door} is missing on node {socket.gethostname()}")
        else:
            self._start()

    def news(self) -> dict[str, Any]:
        """The next logged line, a sign of life, or the end."""
        deadline = time.monotonic() + BEAT
        while self.over is None:
            ended = self.process.code(0.1) if self.process else None  # before its last lines are read
            line = self.lines.next()
            if line is not None:
                return self._told(line)
            if ended is not None:
                self._ended(ended)
            elif time.monotonic() > deadline:
                return self._facts()
        value = {"value": self._value()} if self.over.status == "finished" else {}
        return {"done": True, "status": self.over.status, "reason": self.over.reason, **value, **self._facts()}

    def stop(self) -> None:
        """Stop it if it is at work: it saves itself."""
        if self.process:
            self.process.stop()
            self.process.close()
            self.process = None

    def _start(self) -> None:
        self.starts += 1
        self.process = Process(command(self.order), self.order.folder, environment(self.order), self.order.grace)

    def _ended(self, code: int) -> None:
        assert self.process is not None, "it has just ended"
        end = judge(code, (self.order.folder / FINISHED).exists(), self.process.tail())
        self.process.close()
        self.process = None
        if end.status == "again" and self.starts <= self.order.retries:
            time.sleep(PAUSE)
            self._start()
        elif end.status == "again":
            self.over = End("failed", f"{end.reason}, {self.starts} times")
        elif end.status == "finished" and not is_finite(self._value()):
            self.over = End("failed", f"{self.order.metric} was no finite number in any of its lines")
        else:
            self.over = end

    def _told(self, line: dict[str, Any]) -> dict[str, Any]:
        """A line of metrics.jsonl, as Tune hears it."""
        if self.lines.first is line and (wrong := check_metric(self.order.metric, line)):
            self.over = End("misnamed", wrong)
        self.step_number, self.seconds = line["step"], line.get("seconds") or self.seconds
        found: Any = line.get(self.order.metric)
        if not is_finite(found):
            return self._facts()
        self.last = float(found)
        better = min if self.order.mode == "min" else max
        self.best = better(self.best, self.last) if is_finite(self.best) else self.last
        return {"value": self.last, "step": self.step_number, **self._facts()}

    def _value(self) -> float:
        return self.best if self.order.at == "best" else self.last

    def _facts(self) -> dict[str, Any]:
        return {
            "steps": self.step_number,
            "trained": self.seconds,
            "starts": self.starts,
            "node": socket.gethostname(),
        }


class Lines:
    """metrics.jsonl, each step once, also where a run that goes on writes its last steps anew."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.first: dict[str, Any] | None = None
        self._offset, self._file, self._step = 0, -1, -1
        self._waiting: list[dict[str, Any]] = []

    def next(self) -> dict[str, Any] | None:
        """The next line, if there is one."""
        if not self._waiting and self.path.exists():
            facts = self.path.stat()
            if facts.st_ino != self._file or facts.st_size < self._offset:
                self._file, self._offset = facts.st_ino, 0
            lines, self._offset = read_on(self.path, self._offset)
            self._waiting = [line for line in lines if line["step"] > self._step]
        if not self._waiting:
            return None
        line = self._waiting.pop(0)
        self._step = line["step"]
        self.first = self.first or line
        return line


def command(order: Order) -> list[str]:
    """The launch that a user would type."""
    run = [order.door, order.config]
    if order.processes == 1:
        return [sys.executable, *run]
    # On GPUs the launcher takes those of CUDA_VISIBLE_DEVICES, if it is not told how many.
    count = [] if order.gpus else ["--num_accelerators", str(order.processes)]
    launcher = [sys.executable, "-m", "deepspeed.launcher.runner", "--hostfile", os.devnull, *count]
    return [*launcher, "--master_port", str(free_port()), *run]


def environment(order: Order) -> dict[str, str]:
    """The worker's, with this trial's share of the node."""
    ours = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_SIZE", "MASTER_ADDR", "MASTER_PORT")
    kept = {key: value for key, value in os.environ.items() if key not in ours}
    kept["OMP_NUM_THREADS"] = str(max(1, int(order.cpus / order.processes)))
    kept[CORES] = str(order.cpus)
    kept["TQDM_DISABLE"] = "1"
    kept.pop("FBM_PARENT_RUN", None)
    if order.parent:
        kept["FBM_PARENT_RUN"] = order.parent
    if not order.gpus:  # what others on this node use is not its own
        kept |= {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
    return kept


def free_port() -> int:
    """A port of this node that nobody has now; should another take it, the trial is started again."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
