"""Starts of the loader, each in a process of its own: seconds to the first batch, and memory."""

from __future__ import annotations

import functools
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fbm_dist.schema import Data

Start = dict[str, Any]  # what fresh.py says
COLUMNS = (
    "start", "seconds", "least - most", "MB", "main", "readers", "private", "mapped files", "shared", "MB, batch 50",
)  # fmt: skip


@functools.cache
def _reader() -> str:
    """What Linux says of the memory of a process that has imported what a reader imports, and no more."""
    code = "import nvidia.dali._multiproc.worker, fbm_dist.data.source; print(open('/proc/self/status').read())"
    return subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True).stdout


def fresh(data: Data, *, batches: int = 50, every: int = 0) -> Start:
    """What fresh.py says."""
    said = [data.model_dump_json(exclude_defaults=True), str(batches), str(every), _reader()]
    command = [sys.executable, str(Path(__file__).with_name("fresh.py")), *said]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: Start = json.loads(done.stdout.splitlines()[-1])
    return found


def row(name: str, starts: Sequence[Start]) -> tuple[str, ...]:
    """`COLUMNS` of a table."""
    seconds = sorted(start["seconds"] for start in starts)
    last = starts[-1]
    parts = (last["main"][part] + last["readers"][part] for part in ("private", "files"))
    mb = (
        median(starts, "mb", 1), last["main"]["all"], last["readers"]["all"], *parts, last["main"]["shared"],
        median(starts, "mb_later", 1),
    )  # fmt: skip
    told = (f"{statistics.median(seconds):.2f}", f"{seconds[0]:.2f} - {seconds[-1]:.2f}")
    return (name, *told, *(f"{value:.0f}" for value in mb))


def median(starts: Sequence[Start], name: str, places: int) -> float:
    """Rounded."""
    return round(statistics.median(start[name] for start in starts), places)
