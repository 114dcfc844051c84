"""Workers on a Ray cluster: the jobs of a lost one (its machine went away) are done by others."""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import sys
import sysconfig
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from data_tools.execution.events import Done, Event, Failed, Follow, Progressed
from data_tools.execution.processes import STARTUP, TICK
from data_tools.execution.slot import PERIOD, Slot

REACH = 10.0  # seconds to reach the address of a cluster: Ray itself tries for a quarter of an hour
RECOUNT = 5.0  # seconds between two counts of the cluster's CPUs
OBJECT_STORE = 100 << 20  # bytes, of a local Ray: only jobs and their results pass through


@dataclass
class _Job:
    number: int
    payload: bytes
    losses: int = 0


@dataclass(eq=False)
class _Post:
    """One actor, and the answer that it owes."""

    actor: Any
    answer: Any = None
    asked: float = field(default_factory=time.monotonic)
    node: str = ""  # until it has arrived somewhere
    job: _Job | None = None

    def ask(self, order: tuple[Any, ...] | None) -> None:
        self.answer, self.asked = self.actor.turn.remote(order), time.monotonic()


class RayCrew:
    """Workers on a Ray cluster, started when first needed and kept from one stage of work to the next.

    Each is an actor on one CPU; its child process does the job under the same limits, with the same verdicts, as in
    `processes.Crew`. An actor that dies is a lost worker: its job is done again by another one.

    Args:
        workers: how many at most; None: one a CPU of the cluster, counted again while it grows and shrinks.
        time_limit: seconds of silence after which a job is given up and its process killed.
        memory_limit: GiB that one process may hold (resident).
        job_limit: seconds for one job altogether; None: as long as it gives signs of life.
        address: "auto", HOST:PORT or ray://HOST:PORT of a running cluster; None: a local one for as long as the crew lives.
        attempts: how many workers a job may lose before it is given up.
        probe: a file that every machine must see, in an output folder that they share.
        patience: seconds to go on without a single worker.
        note: takes a line when a worker is lost.
        gpu_share: of a GPU, that each worker takes; 0: none.
    """

    def __init__(
        self,
        workers: int | None,
        time_limit: float,
        memory_limit: float | None = None,
        job_limit: float | None = None,
        address: str | None = None,
        attempts: int = 5,
        probe: str | None = None,
        patience: float = 600.0,
        note: Callable[[str], None] | None = None,
        gpu_share: float = 0.0,
    ) -> None:
        self._size = workers
        self._limits = {"time_limit": time_limit, "memory_limit": memory_limit, "job_limit": job_limit}
        self._address = address
        self._attempts = attempts
        self._probe = probe
        self._patience = patience
        self._note = note or (lambda _: None)
        self._gpu_share = gpu_share
        self._ray: Any = None
        self._connected = False  # by us
        self._posts: list[_Post] = []
        self._waiting: deque[_Job] = deque()
        self._num_cpus, self._counted = 0, 0.0
        self._trouble = "no free CPU"

    def __enter__(self) -> RayCrew:
        """Connect.

        Raises:
            ValueError: there is no Ray, no cluster at the address, or no GPU where workers need one.
        """
        try:
            import ray
        except ImportError:
            raise ValueError("executor=ray needs Ray: pip install 'ray[tune]'") from None
        self._ray = ray
        if not ray.is_initialized():  # else whoever connected this process decides
            connect(ray, self._address, self._size)
            self._connected = True
        if self._gpu_share and not self._cpus():
            self.__exit__()
            raise ValueError("the Ray cluster has no GPU; give masks.device=cpu, or a cluster with some")
        return self

    def __exit__(self, *_: object) -> None:
        for post in list(self._posts):
            self._dismiss(post)
        if self._connected:
            self._ray.shutdown()
            self._ray._private.worker._worker_logs_enabled = True
            self._connected = False

    def run(self, function: str, jobs: Iterable[Any], follow: Follow | None = None) -> Iterator[Event]:
        """Run `function` on every job, as `events.Executor` says.

        Raises:
            ValueError: the output folder is not visible on one of the machines.
            RuntimeError: no worker is left, and none could be placed for `patience` seconds.
        """
        supply = enumerate(jobs)
        limit = len(jobs) if isinstance(jobs, Sized) else sys.maxsize
        manned = time.monotonic()  # when there was a worker
        self._fill(supply)
        try:
            while self._waiting or any(post.job for post in self._posts):
                for post in [p for p in self._posts if p.node and not p.job]:
                    if self._waiting:
                        post.job = self._waiting.popleft()
                        post.ask((function, post.job.payload, follow is not None))
                        self._fill(supply)
                if self._waiting:
                    self._recruit(limit)
                yield from self._listen(follow)
                if any(post.node for post in self._posts):
                    manned = time.monotonic()
                elif time.monotonic() - manned > self._patience:
                    raise RuntimeError(
                        f"the Ray cluster had no worker for us for {self._patience:g} s ({self._trouble}): "
                        "add machines, or run the same command again later; what is done is kept"
                    )
        finally:
            self._waiting.clear()
            for post in [p for p in self._posts if p.job]:  # nobody waits for them any more
                self._dismiss(post)

    def _fill(self, supply: Iterator[tuple[int, Any]]) -> None:
        """See to it that a job is waiting, if there are more."""
        if not self._waiting and (following := next(supply, None)) is not None:
            self._waiting.append(_Job(following[0], pickle.dumps(following[1])))

    def _recruit(self, limit: int) -> None:
        """Ask for as many workers as there may be; Ray places them where CPUs are or become free."""
        missing = min(self._size or self._cpus(), limit) - len(self._posts)
        if missing <= 0:
            return
        slot = self._ray.remote(num_cpus=1, num_gpus=self._gpu_share, max_restarts=0, max_task_retries=0)(Slot)
        for _ in range(missing):
            actor = slot.options(scheduling_strategy="SPREAD").remote(self._limits, own_paths())
            self._posts.append(_Post(actor, actor.arrive.remote(self._probe)))

    def _cpus(self) -> int:
        if time.monotonic() - self._counted > RECOUNT or not self._num_cpus:
            known = self._ray.cluster_resources()
            fit = min(known.get(name, 0) / each for name, each in (("CPU", 1), ("GPU", self._gpu_share)) if each)
            self._num_cpus, self._counted = int(fit), time.monotonic()
        return self._num_cpus

    def _listen(self, follow: Follow | None) -> Iterator[Event]:
        """Wait a moment for answers, and deal with all that are there."""
        owing = {post.answer: post for post in self._posts if post.answer is not None}
        if not owing:
            time.sleep(TICK)
            return
        ready, _ = self._ray.wait(list(owing), timeout=TICK)
        if ready:
            ready, _ = self._ray.wait(list(owing), num_returns=len(owing), timeout=0)
        now = time.monotonic()
        late = [p for p in self._posts if p.node and p.answer is not None and now - p.asked > PERIOD + STARTUP]
        for answer in ready:
            yield from self._hear(owing[answer], follow)
        for post in late:
            if post.answer is not None and post.answer not in ready:
                yield from self._lose(post, f"no answer for {STARTUP:g} s")

    def _hear(self, post: _Post, follow: Follow | None) -> Iterator[Event]:
        """Take the answer of an actor, or hear of its end."""
        errors = self._ray.exceptions
        try:
            answer, post.answer = self._ray.get(post.answer), None
        except errors.RayTaskError as error:
            raise RuntimeError(f"a Ray worker cannot work: {_cause(error)}") from error
        except errors.RayError as error:
            if getattr(error, "actor_init_failed", False):  # it would be so on every machine like that one
                raise RuntimeError(
                    f"a Ray worker cannot start; is this package installed on all machines? {_cause(error)}"
                ) from error
            yield from self._lose(post, _cause(error))
            return
        if post.job is None:
            node, visible = answer
            if not visible:
                raise ValueError(
                    f"the output folder is not visible on node {node}: give a folder that all machines share, or an s3:// URL"
                )
            post.node = node
            return
        amount, kind, content = answer
        if amount:
            yield Progressed(post.job.number, amount)
        yield from self._deal_with(post, post.job, kind, content, follow)

    def _deal_with(self, post: _Post, job: _Job, kind: str, content: Any, follow: Follow | None) -> Iterator[Event]:
        if kind == "working":
            post.ask(None)
        elif kind == "returned" and follow is not None:
            following = follow(job.number, pickle.loads(content))
            post.ask((None if following is None else (following[0], pickle.dumps(following[1])),))
        elif kind == "raised":
            raise content
        else:
            post.job = None
            yield Done(job.number, pickle.loads(content)) if kind == "done" else Failed(job.number, content)

    def _lose(self, post: _Post, reason: str) -> Iterator[Failed]:
        self._dismiss(post)
        self._trouble = f"the last was lost: {reason}"
        if post.node:
            self._note(f"a worker on {post.node} was lost: {reason}")
        if post.job is None:
            return
        post.job.losses += 1
        if post.job.losses < self._attempts:
            self._waiting.appendleft(post.job)
        else:
            yield Failed(post.job.number, f"the worker was lost {post.job.losses} times")

    def _dismiss(self, post: _Post) -> None:
        self._posts.remove(post)
        with contextlib.suppress(Exception):  # it may be dead, or the cluster gone
            self._ray.kill(post.actor)


def connect(ray: Any, address: str | None, workers: int | None) -> None:
    """Connect this process to the cluster at `address`, or to a local one of `workers` CPUs (None: all that it may use), quietly.

    Raises:
        ValueError: it cannot be reached or started.
    """
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address is None:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            ray.init(
                address="local",
                num_cpus=workers or len(os.sched_getaffinity(0)),
                include_dashboard=False,
                object_store_memory=OBJECT_STORE,
                **quiet,
            )
        else:
            _reach(address)
            ray.init(address=address, **quiet)
    except Exception as error:
        advice = "give ray.address of a running one, or none to have a local one started"
        where = "start a local Ray" if address is None else f"connect to a Ray cluster at {address}; {advice}"
        raise ValueError(f"cannot {where}: {_cause(error)}") from error
    # what Ray has to say on lost machines would go to stdout, amid our words, and there is no public switch
    ray._private.worker._worker_logs_enabled = False


def _reach(address: str) -> None:
    """Is anything there at all."""
    address = (os.environ.get("RAY_ADDRESS") or address) if address == "auto" else address
    scheme, separator, rest = address.rpartition("://")
    there = urlsplit(f"//{rest}")
    if there.hostname and there.port and (scheme == "ray" or not separator):
        socket.create_connection((there.hostname, there.port), timeout=REACH).close()


def _cause(error: Exception) -> str:
    """What an error of Ray says at the end of its many lines."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip()[:300]


def own_paths() -> list[str]:
    """Where this process imports from, beside installed packages and the standard library: other machines have their own."""
    library = sysconfig.get_path("stdlib") + os.sep
    paths = [os.path.abspath(path) for path in sys.path]  # noqa: PTH100  # "" is the current folder
    installed = ("site-packages", "dist-packages")
    return [
        p
        for p in paths
        if Path(p).is_dir() and not (p + os.sep).startswith(library) and not any(i in p for i in installed)
    ]
