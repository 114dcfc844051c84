"""What is worked out once a machine and then mapped by all of its processes: folders of arrays, whole or not there. Imports no torch."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_tools.places import FULL

ABOUT = "about.json"


def cache_folder() -> Path:
    """A writable folder of this node: FBM_CACHE, else XDG_CACHE_HOME or ~/.cache, else the system's temporary folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    chosen = os.environ.get("FBM_CACHE")
    candidates = (
        [Path(chosen)] if chosen else [Path(home) / "fbm_dist", Path(tempfile.gettempdir()) / f"fbm_dist-{os.getuid()}"]
    )
    for folder in candidates:
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if os.access(folder, os.W_OK) and folder.stat().st_uid == os.getuid():
                return folder
        except OSError:
            continue
    raise ValueError(
        f"no writable cache folder ({', '.join(map(str, candidates))}); set FBM_CACHE to one of this machine"
    )


def hashed(*words: object) -> str:
    """64 bits, as text."""
    return hashlib.sha256(repr(words).encode()).hexdigest()[:16]


def built(folder: Path, write: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """What is said about a cached folder of arrays (*.npy); it is made first where it is not there, or not whole.

    Args:
        write: fills an empty folder and says what is to be known about it (JSON). One process of a node does it, the others wait.
    Raises:
        ValueError: the disk is full; or what `write` raises, and nothing is left behind.
    """
    about = _about(folder)
    if about is None:
        with _lock(folder):
            about = _about(folder) or _build(folder, write)
    return about


def _about(folder: Path) -> dict[str, Any] | None:
    """The description, or None where there is no usable folder."""
    try:
        about = json.loads((folder / ABOUT).read_text())
        complete = all((folder / name).stat().st_size == size for name, size in about["sizes"].items())
        return about if complete else None
    except (OSError, ValueError, KeyError):
        return None


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # the kernel lets go when this process ends, however it ends
        yield


def _build(folder: Path, write: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Write beside the final place, then rename: a reader sees all of it or nothing."""
    prefix = f".{folder.name}-{platform.node()}-"
    # by a process that was killed: who holds the lock is alone on this machine
    for left in folder.parent.glob(f"{prefix}*"):
        shutil.rmtree(left, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
    try:
        about = write(temporary)
        about["sizes"] = {path.name: path.stat().st_size for path in sorted(temporary.glob("*.npy"))}
        (temporary / ABOUT).write_text(json.dumps(about))
        made = _about(folder)  # by another machine, where the folder is shared and locks are not
        if made is not None:
            return made
        shutil.rmtree(folder, ignore_errors=True)  # a damaged one
        temporary.rename(folder)
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise ValueError(
            f"{folder.parent}: {error.strerror}; make room, or set FBM_CACHE to a folder of another disk"
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return about
