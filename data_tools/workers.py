"""Processes that may die: run a function on many jobs; a crash or a hang costs one job, never the run."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from typing import IO, Any

BEAT = 0.5  # seconds between two signs of life that a worker sends
TICK = 1.0  # seconds between two looks at the clock
STARTUP = 120.0  # seconds that a fresh process may take beyond a job's time limit
FATAL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}  # disk full, quota used up, read-only: no job can do better


@dataclass(frozen=True)
class Done:
    """A job that returned."""

    job: int
    result: Any


@dataclass(frozen=True)
class Failed:
    """A job that did not: the process died or fell silent, or the function raised something unforeseen."""

    job: int
    reason: str


@dataclass(frozen=True)
class Progressed:
    """A sign of life: `amount` more of what the function counts (frames)."""

    job: int
    amount: int


class _Worker:
    """One child process and the pipe to it."""

    def __init__(self) -> None:
        self.pipe, child = Pipe()
        self.errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # a crashing library's last words
        # a fresh interpreter: needs no importable __main__ of the caller, and inherits no threads or locks
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"):
            environment[name] = "1"  # one process a core: more threads only get in each other's way
        self.process = subprocess.Popen(
            [sys.executable, "-m", "data_tools.workers", str(child.fileno()), str(os.getpid())],
            pass_fds=[child.fileno()],
            env=environment,
            stdin=subprocess.DEVNULL,
            stderr=self.errors,
        )
        child.close()
        self.job: int | None = None
        self.grace = STARTUP  # until it has said that it is up: a busy machine starts interpreters slowly
        self.seen = time.monotonic()

    def give(self, job: int, function: str, payload: Any) -> None:
        self.errors.seek(0)  # the child writes at the same place
        self.errors.truncate()
        self.pipe.send((function, payload))
        self.job, self.seen = job, time.monotonic()  # only now: what a dead process never got is still to be done

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.pipe.close()
        self.errors.close()

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

    Args:
        workers: how many processes at most.
        time_limit: seconds of silence after which a job is given up and its process killed.
    """

    def __init__(self, workers: int, time_limit: float) -> None:
        self._size = workers
        self._time_limit = time_limit
        self._workers: list[_Worker] = []

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.stop()
        self._workers = []

    def run(self, function: str, jobs: Sequence[Any]) -> Iterator[Done | Failed | Progressed]:
        """Run `function` on every job; yields what happens, in the order in which it does.

        Args:
            function: "module:name" of a callable `(job, beat) -> result`; it calls `beat(amount)` while it gets on.
            jobs: picklable.
        Raises:
            OSError: the function met a full disk or a read-only folder: going on would fail for every job.
        """
        waiting = deque(range(len(jobs)))
        while waiting or any(worker.job is not None for worker in self._workers):
            while len(self._workers) < min(self._size, len(jobs)) and waiting:
                self._workers.append(_Worker())
            for worker in self._workers:
                if worker.job is None and waiting:
                    with contextlib.suppress(OSError):  # it died between two jobs: its end is heard below
                        worker.give(waiting[0], function, jobs[waiting[0]])
                        waiting.popleft()
            for pipe in wait([worker.pipe for worker in self._workers], timeout=TICK):
                yield from self._hear(next(w for w in self._workers if w.pipe is pipe))
            yield from self._bury_the_silent()

    def _bury_the_silent(self) -> Iterator[Failed]:
        for worker in list(self._workers):
            if worker.job is not None and time.monotonic() - worker.seen > self._time_limit + worker.grace:
                self._workers.remove(worker)
                worker.stop()
                yield Failed(worker.job, f"no progress for {self._time_limit:g} s: given up")

    def _hear(self, worker: _Worker) -> Iterator[Done | Failed | Progressed]:
        """Read one message of a worker, or its death."""
        try:
            kind, content = worker.pipe.recv()
        except (EOFError, OSError):
            self._workers.remove(worker)
            reason = worker.epitaph()
            worker.stop()
            if worker.job is None and worker.grace == 0:  # it died idle (out of memory, say): another takes its place
                return
            if worker.job is None:
                raise RuntimeError(f"a worker process ended by itself: {reason}") from None
            yield Failed(worker.job, reason)
            return
        worker.seen, worker.grace = time.monotonic(), 0.0
        if worker.job is None or kind == "up":
            return
        if kind == "beat":
            yield Progressed(worker.job, content)
            return
        job, worker.job = worker.job, None
        if kind == "raise":
            raise content
        yield Done(job, content) if kind == "done" else Failed(job, content)


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
            message = ("done", _function(name)(payload, beat))
        except OSError as error:
            whole = OSError(error.errno, error.strerror, error.filename)
            message = ("raise", whole) if error.errno in FATAL else ("failed", _text(error))
        except Exception as error:  # a defect in one film's handling must not cost the others
            message = ("failed", _text(error))
        pipe.send(("beat", saved))
        saved = 0
        pipe.send(message)


def _function(name: str) -> Callable[[Any, Callable[[int], None]], Any]:
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
    threading.Thread(target=_watch, args=(int(sys.argv[2]),), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    _serve(Connection(int(sys.argv[1])))


if __name__ == "__main__":
    _main()
