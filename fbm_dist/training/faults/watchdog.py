"""A run that stands still ends, and says which rank hangs where: every rank's heartbeat is in a store that all of them read."""

from __future__ import annotations

import faulthandler
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from types import TracebackType

import torch.distributed as dist
from torch.distributed import distributed_c10d

from fbm_dist.training.distributed import World

HUNG = 76  # exit code: nothing went on; the same command goes on from the last checkpoint
INTERVAL = 3.0  # seconds between heartbeats, fewer where the timeout is short
LAST_RESORT = 60.0  # seconds beyond the timeout after which a process ends whose threads cannot run; its exit code is 1
PLACE = "host {}, pid {}"
NAMED = 4  # ranks that a message names one by one
VERDICT, ENDED = "verdict", "ended"  # keys of the store


@dataclass(frozen=True)
class Heartbeat:
    """How far one rank is, as its peers read it."""

    rank: int
    posts: int  # one that stands still comes from a process that does
    beats: int  # all ranks make the same ones, so the lowest is behind
    step: int
    phase: str
    idle: float  # seconds since the last beat
    paused: bool = False
    left: str | None = None  # None: inside the loop; "": left it in good order; else the error that it left with

    @property
    def at(self) -> str:
        return f'at step {self.step} in "{self.phase}"'


@dataclass(frozen=True)
class Verdict:
    """Why the run ends: the same on every rank that the store still reaches."""

    text: str
    speaker: int  # the rank that prints it
    culprits: list[int]  # ranks whose stacks tell more
    present: int  # ranks that will read this


class Watchdog:
    """Context around the loop; every rank enters it. The process ends with `HUNG` when no rank has made a beat for `timeout` seconds.

    Threads do all the work, over a connection of their own: a main thread that waits in a collective cannot be unwound.
    torch's own limit on collectives must be longer than `timeout`, or it ends the run first without naming anybody.
    """

    def __init__(self, world: World, timeout: float, interval: float | None = None) -> None:
        """`timeout`: seconds that a phase may take on the slowest rank; `interval`: seconds between heartbeats."""
        self.world, self.timeout = world, timeout
        self.interval = interval or min(INTERVAL, timeout / 10)
        self.patience = max(2.0, 3 * self.interval)  # without a sign for so long, a rank or the store counts as silent
        self._beat = (0, 0, "start", time.monotonic())
        self._pauses = self._posts = 0
        self._left: str | None = None
        self._peers = [(socket.gethostname(), os.getpid())]  # host and process of every rank
        self._done = threading.Event()
        self._ending = False
        self._threads = [threading.Thread(target=self._watch, name="watchdog", daemon=True)]

    def __enter__(self) -> Watchdog:
        self.beat(0, "start")
        self._arm()
        if self.world.size > 1:
            # An own corner of the store: a launcher may keep it for the next attempt, and what is in it is final.
            self._store = _connection(self.world.broadcast(secrets.token_hex(8)), self.patience)
            self._exchange()  # before the gathering, after which every rank's key can be read
            self._peers = self.world.gather(self._peers[0])
            self._threads.append(threading.Thread(target=self._share, name="heartbeat", daemon=True))
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left = "" if error is None else " ".join(f"{type(error).__name__}: {error}".split())[:300]
        self._done.set()
        for thread in self._threads:
            thread.join(2 * self.patience)  # longer than `_end` takes; one that waits for a lost store is left behind
        faulthandler.cancel_dump_traceback_later()

    def beat(self, step: int, phase: str) -> None:
        """The main thread begins `phase` of `step` (data, forward, backward, step, vote, checkpoint ...): values are stored, no more.

        Every rank makes the same sequence of beats: who made fewer is the one that the others wait for.
        """
        self._beat = (self._beat[0] + 1, step, phase, time.monotonic())

    def touch(self) -> None:
        """The present phase goes on well: its time begins anew, and no beat is counted (ranks may do this at will)."""
        beats, step, phase, _ = self._beat
        self._beat = (beats, step, phase, time.monotonic())

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What has no limit in time, e.g. a registration: while any rank is inside, no rank is ended."""
        self._pauses += 1
        try:
            yield
        finally:
            self.touch()
            self._pauses -= 1

    def _heartbeat(self) -> Heartbeat:
        beats, step, phase, at = self._beat
        idle = time.monotonic() - at
        return Heartbeat(self.world.rank, self._posts, beats, step, phase, idle, self._pauses > 0, self._left)

    def _overdue(self) -> bool:
        return not self._pauses and self._heartbeat().idle > self.timeout

    def _arm(self) -> None:
        """Code that never gives back Python's lock stops the threads here too: a timer that needs none then ends the process."""
        faulthandler.dump_traceback_later(self.timeout + LAST_RESORT, exit=True, file=2)

    def _watch(self) -> None:
        """Look at the own main thread. Peers are `_share`'s affair, unless the store keeps it waiting."""
        while not self._done.wait(self.interval / 2):
            self._arm()
            if self.world.size == 1 and self._overdue():
                own = self._heartbeat()
                verdict = judge([own], [replace(own, posts=1)], self._peers, self.timeout, 0.0)
                if verdict:
                    self._tell(verdict)
                    os._exit(HUNG)
            lost = self.world.size > 1 and time.monotonic() - self._answered > self.patience
            if lost and (self._overdue() or self._ending):
                if not self._ending:  # else told already
                    self._tell_lost()
                os._exit(HUNG)

    def _share(self) -> None:
        """Post and read heartbeats. A rank that is overdue looks twice at all of them: who did not post in between is silent."""
        before: list[Heartbeat] = []
        since = 0.0
        with suppress(RuntimeError):  # the store has gone; where this rank hangs, `_watch` says so
            while not self._done.wait(self.interval):
                verdict = self._exchange()
                if not self._overdue():
                    before = []
                elif not before:
                    before, since = self._read(), time.monotonic()
                elif verdict is None and time.monotonic() - since > self.patience:
                    found, before = judge(before, self._read(), self._peers, self.timeout, 2 * self.interval), []
                    if found:  # the first rank's verdict becomes everybody's
                        text = self._store.compare_set(VERDICT, "", json.dumps(asdict(found)))
                        verdict = Verdict(**json.loads(text))
                if verdict:
                    self._end(verdict)
            verdict = self._exchange()  # says that this rank has left, and why
            if verdict and self._left:  # its error is but what the others' end did to a collective
                self._end(verdict)

    def _exchange(self) -> Verdict | None:
        """Post the own heartbeat; a verdict, where a rank reached one."""
        self._posts += 1
        self._store.set(str(self.world.rank), json.dumps(asdict(self._heartbeat())))
        found = self._store.get(VERDICT) if self._store.check([VERDICT]) else None
        self._answered = time.monotonic()
        return Verdict(**json.loads(found)) if found else None

    def _read(self) -> list[Heartbeat]:
        texts = self._store.multi_get([str(rank) for rank in range(self.world.size)])
        return [Heartbeat(**json.loads(text)) for text in texts]

    def _end(self, verdict: Verdict) -> None:
        """Tell and leave, no rank before all have read: peers of one that left get an error from their collective instead."""
        self._ending = True
        try:
            self._tell(verdict)
            self._store.add(ENDED, 1)
            deadline = time.monotonic() + self.patience
            while self._store.add(ENDED, 0) < verdict.present and time.monotonic() < deadline:
                time.sleep(self.interval / 4)
            if self.world.first:  # the others still ask the store that it serves
                time.sleep(self.interval / 2)
        finally:
            os._exit(HUNG)

    def _tell(self, verdict: Verdict) -> None:
        rank = self.world.rank
        if rank == verdict.speaker:
            _write(verdict.text)
        if rank in verdict.culprits[:NAMED]:
            _write(f"rank {rank}, {PLACE.format(*self._peers[rank])}, is here:")
            faulthandler.dump_traceback(2)

    def _tell_lost(self) -> None:
        """One line a host: the ranks cannot agree on a speaker any more."""
        own, host = self._heartbeat(), self._peers[self.world.rank][0]
        first = min((rank for rank, peer in enumerate(self._peers) if rank and peer[0] == host), default=0)
        if self.world.rank in (0, first):  # rank 0: a launcher serves the store in its place, and has gone
            reason = f"rank 0 ({PLACE.format(*self._peers[0])}) does not answer (its process or host is stopped, dead or cut off)"
            _write(_line(own.idle, [reason, *_positions([own])]))


def judge(
    before: list[Heartbeat], now: list[Heartbeat], peers: list[tuple[str, int]], timeout: float, slack: float
) -> Verdict | None:
    """Who is to blame for a standstill; None while some rank goes on.

    Blamed are those that left with an error, else those without a new post, else those with the fewest beats.

    Args:
        before, now: all ranks' heartbeats in rank order, read some time apart.
        peers: every rank's host and process.
        slack: seconds by which a heartbeat may be old.
    """
    silent = [new for old, new in zip(before, now, strict=True) if new.posts == old.posts and new.left is None]
    present = [new for old, new in zip(before, now, strict=True) if new.posts != old.posts and new.left is None]
    if not present or any(one.paused or one.idle < timeout - slack for one in present):
        return None
    failed = [one for one in now if one.left]
    behind = [one for one in present if one.beats == min(other.beats for other in present)]
    if failed:
        culprits = failed
        reasons = [f"{_named([one], peers)} left {one.at} with {one.left}" for one in failed[:NAMED]]
    elif silent:
        why = "not answering (stopped, dead or cut off), last seen"
        culprits, reasons = silent, [f"{_named([one], peers)} is {why} {one.at}" for one in silent[:NAMED]]
    elif len(behind) < len(present) or len(now) == 1:
        culprits, reasons = behind, [f"{_named(behind, peers)} {'hang' if behind[1:] else 'hangs'} {behind[0].at}"]
    else:  # all of them wait, for each other or for something that is no rank
        culprits = behind[:1]
        reasons = [f"{_ranks(behind)} wait {behind[0].at} and none is behind: is it the network or a file system?"]
    waiting = [one for one in present if one not in behind] if culprits[0] in behind else present
    more = [f"{len(culprits) - NAMED} more are likewise"] if len(culprits) > NAMED and culprits is not behind else []
    text = _line(min(one.idle for one in present), [*reasons, *more, *_positions(waiting)])
    return Verdict(text, present[0].rank, [one.rank for one in culprits], len(present))


def _line(idle: float, parts: list[str]) -> str:
    return f"error: no progress for {idle:.0f} s: {'; '.join(parts)}. The job ends; the same command goes on from the last checkpoint"


def _positions(waiting: list[Heartbeat]) -> list[str]:
    """Ranks that wait, by the place where they do."""
    places: dict[str, list[Heartbeat]] = {}
    for one in waiting:
        places.setdefault(one.at, []).append(one)
    return [f"{_ranks(ones)} {'wait' if ones[1:] else 'waits'} {at}" for at, ones in list(places.items())[:NAMED]]


def _named(ones: list[Heartbeat], peers: list[tuple[str, int]]) -> str:
    """`rank 3 (host gpu07, pid 4711)`; of many, the first."""
    if len(ones) > NAMED:
        return _ranks(ones)
    return " and ".join(f"rank {one.rank} ({PLACE.format(*peers[one.rank])})" for one in ones)


def _ranks(ones: list[Heartbeat]) -> str:
    """`ranks 0-2, 4` of ascending ranks."""
    spans: list[list[int]] = []
    for one in ones:
        if spans and spans[-1][-1] == one.rank - 1:
            spans[-1][1:] = [one.rank]
        else:
            spans.append([one.rank])
    return f"rank{'s' if ones[1:] else ''} {', '.join('-'.join(map(str, span)) for span in spans)}"


def _write(line: str) -> None:
    """Straight to the file: the main thread may hang with the lock of `sys.stderr` in its hands."""
    with suppress(OSError):
        os.write(2, f"{line}\n".encode())


def _connection(corner: str, timeout: float) -> dist.Store:
    """A part of the process group's store, over a connection that no collective and no other thread uses.

    Its `timeout` (seconds) bounds waiting for a key, not for a server that is stopped: no call of it is made by the main thread.
    """
    store = distributed_c10d._get_default_store()
    while isinstance(store, dist.PrefixStore):
        store = store.underlying_store
    if isinstance(store, dist.TCPStore):
        limit = timedelta(seconds=max(timeout, 30.0))
        store = dist.TCPStore(store.host, store.port, None, False, limit, wait_for_workers=False)
    else:
        store = store.clone()
    return dist.PrefixStore(f"watchdog/{corner}", store)
