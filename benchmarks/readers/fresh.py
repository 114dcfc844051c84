"""What a rank's start costs, in a process of its own: `python fresh.py DATA BATCHES EVERY READER`, one line of JSON.

Seconds are from the call of Loader(...) to its first batch. Memory is what this process and its readers hold above what they hold
once their modules are imported: the largest resident sets together up to that batch, in MB, and their parts (private,
pages of mapped files, shared memory; Linux's RssAnon, RssFile and RssShmem); also up to the last of BATCHES batches, and with EVERY > 0
after every so many. DATA is `data` of a config as JSON, READER what /proc says of a process that has only imported what a reader imports.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import psutil

EVERY = 0.02  # seconds between two looks
PARTS = {"VmRSS": "all", "RssAnon": "private", "RssFile": "files", "RssShmem": "shared"}


class Memory:
    """Peak memory of this process and its readers above their imports."""

    def __init__(self, reader: str) -> None:
        """
        Args:
            reader: /proc/PID/status of a process that has imported what a reader imports.
        """
        self.peak: dict[str, Counter[str]] = {"main": Counter(), "readers": Counter()}
        self._reader = _parts(reader)
        self._me = psutil.Process()
        self._own = _of(self._me.pid)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look once more, and then no more."""
        self._done.set()
        self._thread.join()
        self.look()

    def _watch(self) -> None:
        while not self._done.wait(EVERY):
            self.look()

    def look(self) -> None:
        """Remember what is held now if it is the most so far."""
        now = self.now()
        if total(now) > total(self.peak):
            self.peak = now

    def now(self) -> dict[str, Counter[str]]:
        """MB of this process and of its readers, by `PARTS`."""
        now = {"main": Counter(_of(self._me.pid)), "readers": Counter()}
        now["main"].subtract(self._own)
        for child in self._me.children():
            try:
                if "spawn_main" in " ".join(child.cmdline()):  # not Python's resource tracker
                    now["readers"].update(_of(child.pid))
                    now["readers"].subtract(self._reader)
            except (psutil.Error, OSError):
                continue
        return now


def total(memory: dict[str, Counter[str]]) -> float:
    """MB. Shared memory once: what readers have of it, the main process has too."""
    return memory["main"]["all"] + memory["readers"]["private"] + memory["readers"]["files"]


def _of(process: int) -> dict[str, float]:
    return _parts(Path(f"/proc/{process}/status").read_text())


def _parts(status: str) -> dict[str, float]:
    """MB of each of `PARTS`."""
    lines = (line.partition(":") for line in status.splitlines())
    return {PARTS[name]: int(value.split()[0]) / 1000 for name, _, value in lines if name in PARTS}


def main() -> None:
    from fbm_dist.data.loader import Loader
    from fbm_dist.schema import Data

    data = Data.model_validate_json(sys.argv[1])
    batches, every = map(int, sys.argv[2:4])
    memory = Memory(sys.argv[4])
    over_time = []
    start = time.perf_counter()
    with Loader(data, seed=0, global_batch=8, micro_batch=8) as loader:
        stream = iter(loader)
        next(stream)
        seconds = time.perf_counter() - start
        memory.look()
        first = memory.peak
        for number in range(2, batches + 1):
            next(stream)
            if every and number % every == 0:
                over_time.append([number, *(round(part["all"], 1) for part in memory.now().values())])
        memory.stop()
    parts = {who: {part: round(mb, 1) for part, mb in peak.items()} for who, peak in first.items()}
    said = {"seconds": seconds, "mb": total(first), "mb_later": total(memory.peak), "over_time": over_time}
    print(json.dumps(said | parts))


if __name__ == "__main__":
    main()
