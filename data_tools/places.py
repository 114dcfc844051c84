"""Places: files and folders on a disk or in object storage behind pathlib's interface, written whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TypeAlias, TypeVar

from typing_extensions import TypeIs
from upath import UPath

T = TypeVar("T")
Place: TypeAlias = Path | UPath  # a Path on local disks

ATTEMPTS = 5  # of one transfer to or from a network
PAUSE = 1.0  # seconds before the second attempt; doubled before every further one
FINAL = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError)  # trying again would not help
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})  # nor here: disk full, quota used up, read-only
TEMPORARY = re.compile(r"\..+\.\d+\.tmp")  # a file that is being written on a disk
CHUNK = 1 << 22  # bytes read at a time


def place(name: str | os.PathLike[str]) -> Place:
    """A path, or a URL of any kind that fsspec knows (s3://bucket/folder, https://host/file, file:///folder).

    Credentials and addresses come from the environment (for S3: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, or the
    machine's role).

    Raises:
        ValueError: no such kind of storage, or its package is missing; the text says what to install.
    """
    if isinstance(name, UPath):
        return name
    text = os.fspath(name)
    if "://" not in text:
        return Path(text)
    scheme, _, rest = text.partition("://")
    if scheme in ("file", "local"):
        return Path("/" + rest.lstrip("/"))
    try:
        # listings are never remembered: other processes write to the same store
        there = UPath(text, use_listings_cache=False)
        _ = there.fs
    except (ImportError, ValueError) as error:
        needed = "; pip install 'fbm-dist[s3]'" if isinstance(error, ImportError) and scheme == "s3" else ""
        raise ValueError(f"{text}: {line(error)}{needed}") from error
    return there


def is_local(there: Place) -> TypeIs[Path]:
    """Is it on a disk of this machine (or one mounted there)."""
    return isinstance(there, Path)


def again(what: str, call: Callable[[], T], attempts: int = ATTEMPTS, pause: float = PAUSE) -> T:
    """`call()`, tried a number of times with growing pauses: stores and networks fail for moments.

    Raises:
        OSError: one line, `what` and the last failure; FileNotFoundError where that is what it was, and with its errno.
    """
    for attempt in range(1, attempts + 1):
        try:
            return call()
        except Exception as error:  # every store has exceptions of its own, not all of them are OSErrors
            number = getattr(error, "errno", None)
            if attempt == attempts or isinstance(error, FINAL) or number in FULL:
                kind = next((k for k in FINAL if isinstance(error, k)), OSError)
                tried = f" after {attempt} attempts" if attempt > 1 else ""
                told = kind(" ".join(f"{what}{tried}: {line(error)}".split()))
                told.errno = number
                raise told from error
            time.sleep(pause * 2 ** (attempt - 1))
    raise AssertionError


def read_bytes(there: Place) -> bytes:
    """All of a file."""
    if isinstance(there, Path):
        return there.read_bytes()
    return again(f"cannot read {there}", lambda: bytes(there.fs.cat_file(there.path)))


def read_range(there: Place, start: int, size: int) -> bytes:
    """`size` bytes of a file from `start` on; fewer where it ends before."""
    if isinstance(there, Path):
        with there.open("rb") as file:
            return os.pread(file.fileno(), size, start)
    return again(f"cannot read {there}", lambda: bytes(there.fs.cat_file(there.path, start=start, end=start + size)))


def size_of(there: Place) -> int | None:
    """Bytes of a file; None where there is none."""
    try:
        if isinstance(there, Path):
            return there.stat().st_size if there.is_file() else None
        return again(f"cannot look at {there}", lambda: int(there.fs.info(there.path)["size"]))
    except FileNotFoundError:
        return None


def listed(folder: Place) -> list[str]:
    """Names of the files directly in a folder, sorted; empty where there is no such folder."""
    try:
        if isinstance(folder, Path):
            return sorted(entry.name for entry in os.scandir(folder) if entry.is_file())
        found = again(f"cannot list {folder}", lambda: folder.fs.ls(folder.path, detail=True))
    except FileNotFoundError:
        return []
    return sorted(entry["name"].rstrip("/").rpartition("/")[2] for entry in found if entry["type"] == "file")


def remove(there: Place) -> None:
    """Remove a file, if it is there."""
    if isinstance(there, Path):
        there.unlink(missing_ok=True)
        return
    with suppress(FileNotFoundError):
        again(f"cannot remove {there}", lambda: there.fs.rm_file(there.path))


@contextmanager
def atomic(there: Place, durable: bool = True) -> Iterator[IO[bytes]]:
    """A file that appears under its name complete and on disk, or not at all.

    On a local disk it is renamed into place; an object store takes a whole object or none.

    Args:
        durable: it outlives a machine that loses its power, not only a process that is killed.
    """
    if not isinstance(there, Path):
        with tempfile.NamedTemporaryFile() as file:
            yield file
            file.flush()
            again(f"cannot write {there}", lambda: there.fs.put_file(file.name, there.path))
        return
    temporary = there.with_name(f".{there.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.rename(there)
    except OSError as error:
        if error.errno in FULL and error.filename is None:  # of a write, which does not say where
            error.filename = str(there)
        raise
    finally:
        temporary.unlink(missing_ok=True)
    if not durable:
        return
    folder = os.open(there.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name is on disk too
    finally:
        os.close(folder)


def sweep_unfinished(folder: Place) -> None:
    """Remove what processes that were killed were writing directly in a folder; nobody may be at work there."""
    for name in listed(folder) if isinstance(folder, Path) else ():  # an object store takes whole objects
        if TEMPORARY.fullmatch(name):
            remove(folder / name)


def write_atomic(there: Place, data: bytes, durable: bool = True) -> None:
    """`atomic` for bytes at hand."""
    if not isinstance(there, Path):
        again(f"cannot write {there}", lambda: there.fs.pipe_file(there.path, data))
        return
    with atomic(there, durable) as file:
        file.write(data)


def sha256_of(there: Place, progress: Callable[[], None] | None = None) -> str:
    """Hex digest of a file's bytes; `progress` is called now and then."""
    digest = hashlib.sha256()
    with there.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            if progress is not None:
                progress()
    return digest.hexdigest()


def line(error: BaseException) -> str:
    """What an error says, in one line."""
    text: Any = getattr(error, "strerror", None) or str(error)
    return " ".join(str(text).split()) or type(error).__name__
