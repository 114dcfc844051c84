"""metrics.jsonl: one line per logged step; the run's own record, and the queue that tracking sends from."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

NAME = "metrics.jsonl"


class MetricsFile:
    """Rank 0's writer. A resumed run first drops the lines of steps that it does again: each step has one line."""

    def __init__(self, folder: Path, step: int) -> None:
        """Open `folder`/metrics.jsonl for the lines after `step`. `dropped`: how many later lines were taken out."""
        self.path = folder / NAME
        lines = read_lines(self.path)
        kept = [line for line in lines if line["step"] <= step]
        self.dropped = len(lines) - len(kept)
        folder.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_suffix(".new")
        with fresh.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in kept)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path)
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        self._waiting = b""  # what the disk had no room for

    def write(self, step: int, metrics: Mapping[str, float]) -> str:
        """Append one line and hand it to the system. What is not finite becomes null, since JSON has no word for it.

        Returns:
            "", or why lines wait in memory: a full disk ends no run, and they are written when there is room again.
        """
        values = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        line = json.dumps({"step": step, "time": round(time.time(), 3), **values}) + "\n"
        self._waiting += line.encode()
        return self._drain()

    def _drain(self) -> str:
        try:
            while self._waiting:
                self._waiting = self._waiting[os.write(self._file, self._waiting) :]
        except OSError as error:
            return str(error)
        return ""

    def close(self) -> None:
        """Write what waits if there is room, sync and close."""
        self._drain()
        with suppress(OSError):
            os.fsync(self._file)
        os.close(self._file)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a metrics file, none where there is no file; the torn last line of a killed run is left out."""
    return read_on(path, 0)[0]


def read_on(path: Path, offset: int) -> tuple[list[dict[str, Any]], int]:
    """The whole lines from byte `offset` on, and the offset after them."""
    if not path.exists():
        return [], offset
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read()
    whole = data[: data.rfind(b"\n") + 1]
    found = []
    for text in whole.splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue  # torn by a crash of the machine
        if isinstance(line, dict) and isinstance(line.get("step"), int):
            found.append(line)
    return found, offset + len(whole)


def merge(rows: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each name over the rows that have it, in the order of first appearance."""
    sums: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            sums.setdefault(name, []).append(value)
    return {name: math.fsum(values) / len(values) if _finite(values) else math.nan for name, values in sums.items()}


def _finite(values: Iterable[float]) -> bool:
    return all(math.isfinite(value) for value in values)
