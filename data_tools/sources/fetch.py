"""Bring films from elsewhere to this machine, under their own names, and tell without reading them whether they have changed."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from upath import UPath

from data_tools.places import ATTEMPTS, Place, line
from data_tools.sources.download import Absent, Beat, Unreachable, download, web_files
from data_tools.sources.entries import folder_of, is_web, name_of, scheme_of
from data_tools.sources.films import Film, pictures_in
from data_tools.sources.folders import version_of

MAX_NAME = 200  # bytes of a name on a disk, and some room


def fetch(there: Place, folder: Path, beat: Beat, attempts: int = ATTEMPTS, max_bytes: int = 64 << 30) -> Path:
    """A file on this machine: itself, or a copy at `folder`/SOMETHING NEW/its folder's name/its name.

    Args:
        there: the file.
        folder: where copies go; it exists. They are the caller's to remove.
        beat: called with 0 now and then.
        attempts: how often a failure that may pass is tried.
        max_bytes: a larger remote file is refused.
    Raises:
        Unusable: it cannot be had (`Absent`: not there; `Unreachable`: perhaps another time), or is too large. Nothing stays behind.
        OSError: the disk here is full, or may not be written to.
    """
    if isinstance(there, Path):
        return there
    with _new_folder(folder, folder_of(there)) as home:
        path = home / _fitting(name_of(there))
        download(there, path, beat, attempts, max_bytes)
    return path


def fetch_tree(there: Place, folder: Path, beat: Beat, attempts: int = ATTEMPTS, max_bytes: int = 64 << 30) -> Path:
    """A folder of pictures on this machine: itself, or a copy of its pictures at `folder`/SOMETHING NEW/its name.

    Args:
        there: the folder.
        folder: where copies go; it exists. They are the caller's to remove.
        beat: called with 0 now and then.
        attempts: how often a failure that may pass is tried, for each picture.
        max_bytes: more in all is refused.
    Raises:
        Unusable, OSError: as of `fetch`.
    """
    if isinstance(there, Path):
        return there
    try:
        pictures = pictures_in(there)
    except PermissionError:
        raise Absent("no permission to list its folder") from None
    except OSError as error:
        raise Unreachable(f"its folder cannot be listed: {line(error)}"[:300]) from None
    if not pictures:
        raise Absent(f"no pictures in the folder {name_of(there)}")
    with _new_folder(folder, name_of(there)) as home:
        left = max_bytes
        for picture in pictures:
            assert isinstance(picture, UPath)
            path = home / _fitting(picture.name)
            download(picture, path, beat, attempts, left)
            left -= path.stat().st_size
    return home


def fetch_film(film: Film, folder: Path, beat: Beat, attempts: int = ATTEMPTS, max_bytes: int = 64 << 30) -> Film:
    """The film with its files, true masks included, on this machine. Arguments and errors are those of `fetch`."""
    get = fetch_tree if film.kind == "frames" else fetch
    path = get(film.path, folder, beat, attempts, max_bytes)
    if film.masks is None:
        return replace(film, path=path)
    try:
        masks = fetch_tree(film.masks, folder, beat, attempts, max_bytes)
    except Absent as error:
        raise Absent(f"its true masks: {error}") from None
    return replace(film, path=path, masks=masks)


def stamp(film: Film) -> str:
    """What identifies the content of a film's files, masks included, without reading them; empty where nothing does.

    On a disk: sizes and times of change. In a store: sizes and entity tags. On a web server: what it says when asked, once.
    """
    marks = [_folder_mark(film.path) if film.kind == "frames" else film.version or _file_mark(film.path)]
    if film.masks is not None:
        marks.append(_folder_mark(film.masks))
    if not all(marks):
        return ""
    return marks[0] if len(marks) == 1 else _hash(marks)


def _file_mark(there: Place) -> str:
    try:
        if isinstance(there, Path):
            status = there.stat()
            return f"{status.st_size}-{status.st_mtime_ns}"
        if is_web(there):
            return version_of(web_files(scheme_of(str(there))).info(str(there)))
        return version_of(there.fs.info(there.path))
    except Exception:  # of whatever kind: then nothing is known
        return ""


def _folder_mark(folder: Place) -> str:
    try:
        if isinstance(folder, Path):
            marks = [f"{picture.name} {_file_mark(picture)}" for picture in pictures_in(folder)]
        else:
            infos = {info["name"].rpartition("/")[2]: info for info in folder.fs.ls(folder.path, detail=True)}
            marks = [f"{picture.name} {version_of(infos[picture.name])}" for picture in pictures_in(folder)]
    except Exception:  # likewise
        return ""
    return "" if not marks or any(mark.endswith(" ") for mark in marks) else _hash(marks)


def _hash(marks: list[str]) -> str:
    return hashlib.sha256("\n".join(marks).encode("utf-8", "surrogateescape")).hexdigest()[:20]


@contextmanager
def _new_folder(folder: Path, name: str) -> Iterator[Path]:
    """A folder of that name in a new one, so that films keep their names and never meet; gone again if something fails."""
    new = Path(tempfile.mkdtemp(dir=folder))
    try:
        home = new / _fitting(name)
        home.mkdir()
        yield home
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise


def _fitting(name: str) -> str:
    """The name, if a disk takes it; else a short one with the same ending."""
    if name and name not in (".", "..") and "/" not in name and "\0" not in name and len(name.encode()) <= MAX_NAME:
        return name
    ending = Path(name).suffix if len(name) > 1 else ""
    return hashlib.sha256(name.encode()).hexdigest()[:20] + (ending if len(ending) < 10 and "/" not in ending else "")
