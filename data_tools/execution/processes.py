"""Processes that may die: run a function on many jobs; a crash or a hang costs one job, never the run."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, Pipe, wait
from typing import IO, Any

import psutil

from data_tools.execution.events import Done, Event, Failed, Follow, Progressed
from data_tools.places import FULL

BEAT = 0.5  # seconds between two signs of life that a worker sends
TICK = 1.0  # seconds between two looks at the clock
LOOK = 0.25  # seconds between two looks at the memory: a process touches at most a few GB a second
STARTUP = 120.0  # seconds that a fresh process may take beyond a job's time limit
PR_SET_PDEATHSIG = 1
KILLED = {-signal.SIGKILL, -signal.SIGTERM}  # by somebody else: the kernel that lacks memory, a batch system, a person
WORKER = "DATA_TOOLS_WORKER"  # environment variable of a worker: its number on this machine, from 0
LOSSES = 2  # workers that a job may lose so; a crash of its own is judged at once


class _Worker:
    """One child process and the pipe to it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.pipe, child = Pipe()
        self.errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # a crashing library's last words
        # a fresh interpreter: needs no importable __main__ of the caller, and inherits no threads or locks
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p), WORKER: str(number)}
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"):
            environment[name] = "1"  # one process a core: more threads only get in each other's way
        self.process = subprocess.Popen(
            [sys.executable, "-m", "data_tools.execution.processes", str(child.fileno()), str(os.getpid())],
            pass_fds=[child.fileno()],
            env=environment,
            stdin=subprocess.DEVNULL,
            stderr=self.errors,
        )
        child.close()
        self.job: int | None = None
        self.payload: Any = None  # with which the job began
        self.grace = STARTUP  # until it has said that it is up: a busy machine starts interpreters slowly
        self.seen = self.begun = time.monotonic()  # the last sign of life; the start of the job
        self.followed = False  # is this the job's second part

    def give(self, job: int, function: str, payload: Any) -> bool:
        """Send it a job; False if it is dead, which is heard from its pipe."""
        self.errors.seek(0)  # the child writes at the same place
        self.errors.truncate()
        try:
            self.pipe.send((function, payload))
        except OSError:
            return False
        self.job, self.followed = job, False  # only now: what a dead process never got is still to be done
        self.seen = self.begun = time.monotonic()
        return True

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.pipe.close()
        self.errors.close()

    def memory(self) -> float:
        """Resident GiB."""
        try:
            return float(psutil.Process(self.process.pid).memory_info().rss) / 2**30
        except psutil.Error:  # it is gone, which is heard from its pipe
            return 0.0

    def epitaph(self) -> str:
        """Why the process is gone."""
        code = self.process.wait()
        if code >= 0:
            cause = f"exit status {code}"
        else:
            cause = signal.Signals(-code).name if -code in list(signal.Signals) else f"signal {-code}"
        self.errors.seek(0)
        words = self.errors.read()[-2000:].decode("utf-8", "replace").strip().splitlines()
        return f"the process died ({cause})" + (f": {words[-1].strip()[:200]}" if words and code > 0 else "")


class Crew:
    """A number of worker processes, started when first needed and kept from one stage of work to the next.

    They are killed when the thread that started them ends: one that lives as long as the crew does the work.

    Args:
        workers: how many processes at most.
        time_limit: seconds of silence after which a job is given up and its process killed.
        memory_limit: GiB that one process may hold (resident).
        job_limit: seconds for one job altogether; None: as long as it gives signs of life.
    """

    def __init__(
        self, workers: int, time_limit: float, memory_limit: float | None = None, job_limit: float | None = None
    ) -> None:
        self._size = workers
        self._time_limit = time_limit
        self._memory_limit = memory_limit
        self._job_limit = job_limit
        self._workers: list[_Worker] = []
        self._lost: deque[tuple[int, Any]] = deque()  # jobs whose workers were killed
        self._losses: Counter[int] = Counter()

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.stop()
        self._workers = []

    def run(self, function: str, jobs: Iterable[Any], follow: Follow | None = None) -> Iterator[Event]:
        """Run `function` on every job, as `events.Executor` says."""
        tick = TICK if self._memory_limit is None else LOOK
        supply = enumerate(jobs)
        waiting = next(supply, None)
        self._lost, self._losses = deque(), Counter()
        judged = 0.0
        try:
            while waiting is not None or self._lost or any(w.job is not None for w in self._workers):
                hands = self._hands()
                while (self._lost or waiting is not None) and (worker := next(hands, None)) is not None:
                    number, payload = self._lost[0] if self._lost else waiting or (0, None)
                    if not worker.give(number, function, payload):
                        continue
                    worker.payload = payload
                    if self._lost:
                        self._lost.popleft()
                    else:
                        waiting = next(supply, None)
                for pipe in wait([w.pipe for w in self._workers], timeout=tick):
                    yield from self._hear(next(w for w in self._workers if w.pipe is pipe), follow)
                if time.monotonic() - judged >= tick:
                    yield from self._give_up()
                    judged = time.monotonic()
        finally:
            for busy in [w for w in self._workers if w.job is not None]:  # nobody waits for them any more
                self._dismiss(busy)

    def _hands(self) -> Iterator[_Worker]:
        """Idle workers, then new ones."""
        for worker in list(self._workers):
            if worker.job is None and self._memory_limit is not None and worker.memory() > self._memory_limit / 2:
                self._dismiss(worker)  # what an earlier job left behind must not be the next one's fault
            elif worker.job is None:
                yield worker
        while len(self._workers) < self._size:
            taken = {worker.number for worker in self._workers}
            self._workers.append(_Worker(next(n for n in range(self._size) if n not in taken)))
            yield self._workers[-1]

    def _dismiss(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.stop()

    def _give_up(self) -> Iterator[Failed]:
        for worker in list(self._workers):
            reason = self._excess(worker)
            if worker.job is not None and reason is not None:
                self._dismiss(worker)
                yield Failed(worker.job, f"{reason}: given up")

    def _excess(self, worker: _Worker) -> str | None:
        """Which limit a worker is beyond, if any."""
        now = time.monotonic()
        if worker.pipe.poll():  # it has said something that is not heard yet: the caller took its time
            return None
        if now - worker.seen > self._time_limit + worker.grace:
            return f"no progress for {self._time_limit:g} s"
        if self._job_limit is not None and worker.grace == 0 and now - worker.begun > self._job_limit:
            return f"took longer than film_time_limit = {self._job_limit:g} s"
        if self._memory_limit is not None and worker.memory() > self._memory_limit:
            return f"needed more than memory_limit = {self._memory_limit:g} GiB"
        return None

    def _hear(self, worker: _Worker, follow: Follow | None) -> Iterator[Event]:
        """Read one message of a worker, or its death."""
        try:
            kind, content = worker.pipe.recv()
        except (EOFError, OSError):
            reason = worker.epitaph()
            self._dismiss(worker)
            if worker.job is None and worker.grace == 0:  # it died idle (out of memory, say): another takes its place
                return
            if worker.job is None:
                raise RuntimeError(f"a worker process ended by itself: {reason}") from None
            if worker.process.returncode in KILLED and self._losses[worker.job] < LOSSES:
                self._losses[worker.job] += 1
                self._lost.append((worker.job, worker.payload))
                return
            yield Failed(worker.job, reason)
            return
        worker.seen = time.monotonic()
        if kind == "up":
            worker.grace, worker.begun = 0.0, worker.seen
        elif kind == "beat" and worker.job is not None:
            yield Progressed(worker.job, content)
        elif kind == "done" and self._goes_on(worker, content, follow):
            return
        elif worker.job is not None:
            job, worker.job = worker.job, None
            if kind == "raise":
                raise content
            yield Done(job, content) if kind == "done" else Failed(job, content)

    def _goes_on(self, worker: _Worker, result: Any, follow: Follow | None) -> bool:
        """Give the worker the second part of its job, if it has one."""
        if follow is None or worker.followed or worker.job is None:
            return False
        asked = time.monotonic()
        following = follow(worker.job, result)
        if following is None:
            return False
        begun = worker.begun + time.monotonic() - asked  # the time that the caller took is not the job's
        worker.give(worker.job, *following)  # if it has died meanwhile, that is heard as the end of its job
        worker.begun, worker.followed = begun, True
        return True


def _serve(pipe: Connection) -> None:
    """The child: one job after the other until the pipe closes."""
    last, saved = 0.0, 0

    def beat(amount: int = 0) -> None:
        nonlocal last, saved
        saved += amount
        if time.monotonic() - last >= BEAT:
            last = time.monotonic()
            pipe.send(("beat", saved))
            saved = 0

    pipe.send(("up", None))
    while True:
        try:
            name, payload = pipe.recv()
        except EOFError:
            return
        try:
            message = ("done", called(name)(payload, beat))
        except OSError as error:
            whole = OSError(error.errno, error.strerror, error.filename)
            message = ("raise", whole) if error.errno in FULL else ("failed", _text(error))
        except Exception as error:  # a defect in one film's handling must not cost the others
            message = ("failed", _text(error))
        pipe.send(("beat", saved))
        saved = 0
        pipe.send(message)


def called(name: str) -> Callable[[Any, Callable[[int], None]], Any]:
    """The callable that "module:name" names."""
    module, _, attribute = name.partition(":")
    made: Callable[[Any, Callable[[int], None]], Any] = getattr(importlib.import_module(module), attribute)
    return made


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def _watch(parent: int) -> None:
    """End this process when the one that started it is gone, even by kill -9."""
    while os.getppid() == parent:
        time.sleep(TICK)
    os._exit(1)


def _main() -> None:
    with contextlib.suppress(
        OSError, AttributeError
    ):  # Linux: the kernel does it even where a job holds the interpreter lock
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_watch, args=(int(sys.argv[2]),), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    _serve(Connection(int(sys.argv[1])))


if __name__ == "__main__":
    _main()
