"""One writer at a time in a folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def exclusive(folder: Path, command: str) -> Iterator[None]:
    """Hold `folder` for `command`; the lock dies with the process.

    Raises:
        ValueError: another process holds it.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(
            f"{folder}: another `{command}` is at work here; wait for it, or give another output"
        ) from None
    else:
        yield
    finally:
        os.close(handle)
