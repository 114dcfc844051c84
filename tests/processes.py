"""Looking at processes that may end in the same moment."""

from __future__ import annotations

from contextlib import suppress

import psutil


def gone(pid: int) -> bool:
    """Has it ended; one that nobody has reaped counts as ended."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE  # type: ignore[no-any-return]
    except psutil.NoSuchProcess:
        return True


def below(word: str, pid: int | None = None) -> set[int]:
    """Processes below this one, or below `pid`, whose command line or name has the word; none that has ended."""
    found = set()
    for process in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.Error):
            told = " ".join([process.name(), *process.cmdline()])
            if word in told and process.status() != psutil.STATUS_ZOMBIE:
                found.add(process.pid)
    return found
