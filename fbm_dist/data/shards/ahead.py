"""A thread that brings shards of object storage into the cache before they are needed, in the order of the plan."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future

from fbm_dist.data.shards.download import StoppedError
from fbm_dist.data.shards.tars import Tars

log = logging.getLogger("fbm_dist.data")

PATIENCE = 10.0  # seconds that `close` waits for a step that cannot be interrupted


class Ahead:
    """Fetches at most `count` shards, and half of the cache, ahead of the reader; for shards on a disk it does nothing.

    The ranks of a node each have one: what another process is downloading is passed over, so that together they download different
    shards. What fails here is left to the reader that needs the shard, which tries longer and says why.
    """

    def __init__(self, tars: Tars, plan: Iterable[tuple[int, int]], count: int) -> None:
        """
        Args:
            tars: of the calling process.
            plan: (position, shard): where in the stream the reader first needs a shard. Positions do not fall. Iterated by the thread,
                not much further than it fetches; may have no end.
            count: shards.
        """
        self._tars = tars
        self._plan = iter(plan)
        self._count = count
        self._position = -1
        self._moved = threading.Condition()
        self._stop: Future[None] = Future()
        self._thread: threading.Thread | None = None
        if tars.cache is not None:
            self._most = tars.cache.limit // 2
            self._thread = threading.Thread(target=self._run, name="shards-ahead", daemon=True)
            self._thread.start()

    def at(self, position: int) -> None:
        """The reader has come to that position of the stream. Cheap: call it at every batch."""
        with self._moved:
            self._position = position
            self._moved.notify()

    def close(self) -> None:
        """End the thread, and a download that it is at."""
        with self._moved:
            if not self._stop.done():
                self._stop.set_result(None)
            self._moved.notify()
        if self._thread is not None:
            self._thread.join(PATIENCE)

    def _run(self) -> None:
        fetched: deque[tuple[int, int]] = deque()  # position, bytes of what the reader has not come to
        for position, shard in self._plan:
            size = self._tars.size(shard)
            if not self._wait(fetched, size):
                return
            if position < self._position:
                continue  # the reader was faster
            fetched.append((position, size))
            if size > self._most:
                continue
            try:
                self._tars.bring(shard, self._stop)
            except StoppedError:
                return
            except OSError as error:
                log.debug("not fetched ahead: %s", error)

    def _wait(self, fetched: deque[tuple[int, int]], size: int) -> bool:
        """Until one more may be fetched; False when it is time to end."""
        with self._moved:
            while not self._stop.done():
                while fetched and fetched[0][0] <= self._position:
                    fetched.popleft()
                if not fetched or (len(fetched) < self._count and sum(s for _, s in fetched) + size <= self._most):
                    return True
                self._moved.wait()
        return False
