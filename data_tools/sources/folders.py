"""Trees of folders on a disk and in an object store, behind one interface: what is in them, and what is wrong with a file."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from upath import UPath

from data_tools.places import Place, again
from data_tools.sources.entries import printable, spelt

Report = Callable[[str, str], None]  # (name relative to the root, why it cannot be used)


class Folder(NamedTuple):
    """A folder and the names of its files, sorted, hidden ones left out."""

    place: Place
    relative: str  # to the root, with forward slashes; empty for the root itself
    names: list[str]


class File(NamedTuple):
    """A file as its folder knows it."""

    place: Place
    problem: str  # why it can be no film; empty where it may be one
    version: str  # of its content: changes with it; empty where only a look at the file would tell


class Disk:
    """A tree on a disk of this machine. Links are followed; each folder is seen once, although links may make loops."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def walk(self, report: Report) -> Iterator[Folder]:
        """Every folder below the root, itself included, but for hidden ones."""
        seen: set[tuple[int, int]] = set()

        def failed(error: OSError) -> None:
            report(printable(self._relative(Path(error.filename or self._root))), f"cannot be listed: {error.strerror}")

        for folder, folders, names in os.walk(self._root, onerror=failed, followlinks=True):
            try:
                status = os.stat(folder)  # noqa: PTH116  # as os.walk names it
            except OSError as error:
                failed(error)
                folders.clear()
                continue
            if (status.st_dev, status.st_ino) in seen:
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            folders[:] = sorted(f for f in folders if not f.startswith("."))
            yield Folder(Path(folder), self._relative(Path(folder)), sorted(n for n in names if not n.startswith(".")))

    def file(self, folder: Folder, name: str) -> File:
        """One of the folder's files."""
        path = self._root / folder.relative / name
        return File(path, problem_of(path), "")

    def is_folder(self, there: Place) -> bool:
        """Is there a folder of that name."""
        return os.path.isdir(str(there))  # noqa: PTH112  # no error for names that the system does not take

    def _relative(self, path: Path) -> str:
        text = path.relative_to(self._root).as_posix() if path.is_relative_to(self._root) else str(path)
        return "" if text == "." else text


class Store:
    """A tree in an object store, listed once. What no key names is no folder; empty keys that stand for folders are no files."""

    def __init__(self, root: UPath) -> None:
        self._root = root
        self._base = root.path.strip("/")
        kind: Any = type(root)
        self._make: Callable[[str], UPath] = partial(kind, **root.storage_options)  # of a URL; much faster than `/`
        self._scheme = root.protocol
        self._files: dict[str, dict[str, tuple[int | None, str, str]]] = {}  # folder -> name -> size, version, key
        self._children: dict[str, set[str]] = {}  # of folders outside the root

    def walk(self, report: Report) -> Iterator[Folder]:
        """Every folder below the root, itself included, but for hidden ones."""
        found = again(f"cannot list {spelt(self._root)}", lambda: self._root.fs.find(self._root.path, detail=True))
        while found:
            key, info = found.popitem()  # a listing of a million keys is large
            if info.get("type", "file") == "file" and not key.endswith("/"):
                folder, _, name = self._relative(key).rpartition("/")
                if not f"/{folder}/{name}".count("/."):
                    self._files.setdefault(folder, {})[name] = (info.get("size"), version_of(info), key)
        for folder in list(self._files):
            while folder:
                folder = folder.rpartition("/")[0]
                self._files.setdefault(folder, {})
        for folder in sorted(self._files):
            yield Folder(self._root / folder if folder else self._root, folder, sorted(self._files[folder]))

    def file(self, folder: Folder, name: str) -> File:
        """One of the folder's files."""
        size, version, key = self._files[folder.relative][name]
        if "::" in key:  # to fsspec, a chain of storages
            return File(self._root, "'::' in its name", "")
        there = self._make(f"{self._scheme}://{key}")
        return File(there, "the file is empty (0 bytes)" if size == 0 else "", version)

    def is_folder(self, there: Place) -> bool:
        """Is there a folder of that name: known from the listing; before it, or outside the root, asked."""
        assert isinstance(there, UPath)
        key = there.path.strip("/")
        if f"{key}/".startswith(f"{self._base}/"):
            return self._relative(key) in self._files if self._files else self._ask(there)
        parent = there.parent.path  # one question for all its folders
        if parent not in self._children:
            try:
                listing = again(f"cannot list {parent}", lambda: there.fs.ls(parent, detail=True))
            except FileNotFoundError:
                listing = []
            self._children[parent] = {entry["name"].strip("/") for entry in listing if entry["type"] == "directory"}
        return key in self._children[parent]

    def _ask(self, there: UPath) -> bool:
        # not fs.isdir: on S3 it lists everything in the folder
        path = there.path.rstrip("/") or "/"
        try:
            return again(f"cannot look at {spelt(there)}", lambda: there.fs.info(path))["type"] == "directory"
        except FileNotFoundError:
            return False

    def _relative(self, key: str) -> str:
        return key.strip("/")[len(self._base) :].lstrip("/")


def tree_of(root: Place) -> Disk | Store:
    """The tree at or around a place."""
    return Disk(root) if isinstance(root, Path) else Store(root)


def problem_of(path: Path) -> str:
    """Why a file on a disk can be no film; empty where it may be one."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        if os.path.islink(path):  # noqa: PTH114  # no error for names that the system does not take
            return "a link to nothing"
        return f"cannot be opened: {getattr(error, 'strerror', error)}"
    if not stat.S_ISREG(status.st_mode):
        return "not a regular file"
    if status.st_size == 0:
        return "the file is empty (0 bytes)"
    return "" if os.access(path, os.R_OK) else "no permission to read it"


def version_of(info: dict[str, Any]) -> str:
    """What a store says of a file's content without reading it: size, and entity tag or time; empty where it says neither."""
    for name in (
        "ETag",
        "etag",
        "Content-MD5",
        "md5Hash",
        "Last-Modified",
        "LastModified",
        "last_modified",
        "updated",
        "mtime",
        "created",
    ):
        if info.get(name):
            return f"{info.get('size')}-{str(info[name]).strip(chr(34))}"
    return ""
