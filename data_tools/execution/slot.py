"""What runs inside a Ray actor: a place for one worker on some machine, where a crew of one judges each job on the spot."""

from __future__ import annotations

import os
import pickle
import platform
import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from data_tools.execution.events import Done, Failed, Progressed
from data_tools.execution.processes import Crew, called

PERIOD = 2.0  # seconds after which a turn ends though nothing but progress is to be told
PROBES = 3  # looks at the output folder, a second apart: a network file system may show a new file late
CARRIED = "data_tools.execution.slot:carried"


class Slot:
    """One worker of `cluster.RayCrew`.

    The crew works in a thread of its own, so that its limits hold however long the driver is busy with other things. Payloads
    and results pass through as bytes: the actor imports nothing of what the jobs need.

    Args:
        limits: keyword arguments of `Crew`.
        paths: where the driver imports from, beside its installed packages.
    """

    def __init__(self, limits: dict[str, Any], paths: Sequence[str]) -> None:
        sys.path[:0] = [path for path in paths if path not in sys.path]
        self._orders = queue.SimpleQueue[Any]()
        self._news = queue.SimpleQueue[tuple[str, Any]]()
        threading.Thread(target=self._work, args=(limits,), daemon=True).start()

    def arrive(self, probe: str | None) -> tuple[str, bool]:
        """The machine's name, and whether the file `probe` is visible there."""
        return platform.node(), probe is None or _visible(Path(probe))

    def turn(self, order: tuple[Any, ...] | None) -> tuple[int, str, Any]:
        """Take an order, if any, and tell what came of it: (progress made, what happened, its content).

        Args:
            order: (function, pickled payload, whether to ask before the job ends) starts a job;
                ((function, pickled payload) or None,) is the answer to "returned".
        Returns:
            What happened: "working", "returned" (pickled result; an answer is awaited), "done" (pickled result), "failed"
            (reason) or "raised" (an exception that ends everything).
        """
        if order is not None:
            self._orders.put(order)
        deadline, amount = time.monotonic() + PERIOD, 0
        while True:
            try:
                kind, content = self._news.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                return amount, "working", None
            if kind != "progressed":
                return amount, kind, content
            amount += content

    def _work(self, limits: dict[str, Any]) -> None:
        crew = Crew(1, **limits)
        while True:
            function, payload, asks = self._orders.get()
            try:
                for event in crew.run(CARRIED, [(function, payload)], self._ask if asks else None):
                    match event:
                        case Progressed(_, amount):
                            self._news.put(("progressed", amount))
                        case Done(_, result):
                            self._news.put(("done", result))
                        case Failed(_, reason):
                            self._news.put(("failed", reason))
            except Exception as error:  # a full disk, say: the driver's to raise
                self._news.put(("raised", error))

    def _ask(self, _: int, result: bytes) -> tuple[str, Any] | None:
        self._news.put(("returned", result))
        (following,) = self._orders.get()
        return None if following is None else (CARRIED, following)


def carried(job: tuple[str, bytes], beat: Callable[[int], None]) -> bytes:
    """A job of `processes.Crew`: the function of that name on the pickled payload; returns the pickled result."""
    function, payload = job
    return pickle.dumps(called(function)(pickle.loads(payload), beat))


def _visible(file: Path) -> bool:
    for attempt in range(PROBES):
        try:
            if file.name in os.listdir(file.parent):  # noqa: PTH208  # asks the server, where exists() may trust a cache
                return True
        except OSError:
            pass
        if attempt + 1 < PROBES:
            time.sleep(1)
    return False
