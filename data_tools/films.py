"""Find films: video files, folders of frames (with true masks beside them), single pictures, and lists of paths."""

from __future__ import annotations

import csv
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

_VIDEO = (
    "3g2 3gp 264 265 asf avi avs divx dv f4v flv gif h261 h263 h264 h265 hevc ivf m1v m2ts m2v m4v mjpeg mjpg mkv mov "
    "mp4 mpeg mpg mpv mts mxf nsv nut obu ogg ogm ogv qt rm rmvb swf ts vob webm wmv y4m"
)
VIDEO_SUFFIXES = frozenset(f".{suffix}" for suffix in _VIDEO.split())
IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
LIST_SUFFIXES = frozenset({".csv", ".txt", ".lst"})

Kind = Literal["video", "frames", "picture"]


@dataclass(frozen=True)
class Film:
    """Something that may become clips.

    Attributes:
        source: its name in the data set: path relative to the input, with forward slashes, printable.
        path: a video file, a picture, or a folder of frames.
        kind: which of them.
        masks: the folder of its true masks, one PNG a frame, where the layout or labels.csv names one.
    """

    source: str
    path: Path
    kind: Kind
    masks: Path | None = None


@dataclass(frozen=True)
class Rejected:
    """Something that looked like a film from outside and is none."""

    source: str
    reason: str


@dataclass
class Found:
    """What an input holds. `ignored` counts files that are no films by their names."""

    films: list[Film]
    rejected: list[Rejected]
    ignored: int = 0


def find(root: Path, truth: frozenset[Path] = frozenset(), pictures: Literal["frames", "single"] = "frames") -> Found:
    """All films at or below `root` (a folder, one film, or a list of paths), sorted by source.

    A folder that directly holds pictures is one film: `SEQ/frames/*.jpg` (+ `SEQ/masks/*.png`) is SEQ,
    `JPEGImages/480p/SEQ/*.jpg` (+ `Annotations/480p/SEQ/*.png`) as DAVIS has it, or any other folder of frames.

    Args:
        root: where to look.
        truth: folders that hold true masks and are no films.
        pictures: "single" makes a film of each picture instead of each folder.
    Raises:
        ValueError: `root` does not exist, or a list cannot be read.
    """
    found = Found([], [])
    if root.is_dir():
        _walk(root, truth, pictures, found)
    elif not root.exists():
        raise ValueError(f"{root}: no such input; give a folder, a film, or a list of paths (.txt, .csv)")
    elif root.suffix.lower() in LIST_SUFFIXES:
        for entry in read_list(root):
            _listed(entry, root, found)
    else:
        _file(root, root.name, "picture" if root.suffix.lower() in IMAGE_SUFFIXES else "video", found)
    found.films.sort(key=lambda film: film.source)
    found.rejected.sort(key=lambda rejected: rejected.source)
    return found


def read_list(path: Path) -> list[str]:
    """The paths in a list: one a line (.txt; # starts a comment), or the column `path` (.csv).

    Raises:
        ValueError: not text, or a CSV without that column.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from None
    if path.suffix.lower() == ".csv":
        reader = csv.DictReader(text.splitlines())
        if "path" not in (reader.fieldnames or ()):
            raise ValueError(f"{path}: no column 'path'; it has {', '.join(reader.fieldnames or ()) or 'none'}")
        entries = [(row["path"] or "").strip() for row in reader]
    else:
        entries = [line.strip() for line in text.splitlines() if not line.lstrip().startswith("#")]
    return list(dict.fromkeys(entry for entry in entries if entry))


def printable(path: str | os.PathLike[str]) -> str:
    """A path as text that UTF-8 can hold: odd bytes of a file name become escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def pictures_in(folder: Path) -> list[Path]:
    """The pictures directly in a folder, in the order of their names (numbers by value: 2 before 10)."""
    files = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")]
    return sorted(files, key=lambda p: (_by_value(p.stem), p.name))


def _by_value(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key: runs of digits compare as numbers."""
    runs: list[tuple[int, int, str]] = []
    run = ""
    for character in name + "\0":
        if run and (character.isdecimal() != run[-1].isdecimal() or character == "\0"):
            runs.append((0, int(run), "") if run.isdecimal() else (1, 0, run))
            run = ""
        run += character
    return tuple(runs)


def _walk(root: Path, truth: frozenset[Path], pictures: str, found: Found) -> None:
    for folder, names in _folders(root, found):
        relative = folder.relative_to(root)
        images = []
        for name in names:
            suffix = Path(name).suffix.lower()
            if name.startswith("."):
                continue
            if suffix in VIDEO_SUFFIXES:
                _file(folder / name, printable(relative / name), "video", found)
            elif suffix in IMAGE_SUFFIXES:
                images.append(name)
            else:
                found.ignored += 1
        if images and not _holds_masks(folder, truth):
            if pictures == "single":
                for name in images:
                    _file(folder / name, printable(relative / name), "picture", found)
            else:
                found.films.append(_of_frames(folder, root))
        elif folder.suffix.lower() in VIDEO_SUFFIXES:
            found.rejected.append(Rejected(printable(relative), "a folder with the name of a film"))


def _folders(root: Path, found: Found) -> Iterator[tuple[Path, list[str]]]:
    """(folder, names of its files), each folder once although links may make loops."""
    seen: set[tuple[int, int]] = set()

    def report(error: OSError) -> None:
        name = Path(error.filename or "")
        inside = name.relative_to(root) if name.is_relative_to(root) else name
        found.rejected.append(Rejected(printable(inside), f"cannot be listed: {error.strerror}"))

    for folder, folders, names in os.walk(root, onerror=report, followlinks=True):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        yield Path(folder), sorted(names)


def _holds_masks(folder: Path, truth: frozenset[Path]) -> bool:
    if folder.resolve() in truth:
        return True
    if folder.name == "masks" and (folder.parent / "frames").is_dir():
        return True
    parts = folder.parts
    if "Annotations" in parts:
        at = len(parts) - 1 - parts[::-1].index("Annotations")
        return Path(*parts[:at], "JPEGImages", *parts[at + 1 :]).is_dir()
    return False


def _of_frames(folder: Path, root: Path) -> Film:
    """The film that a folder of frames is, with its masks where the layout has them."""
    named = folder.parent if folder.name == "frames" and folder != root else folder
    source = printable(named.relative_to(root)) if named != root else printable(named.resolve().name)
    masks = folder.parent / "masks"
    if folder.name == "frames" and masks.is_dir():
        return Film(source, folder, "frames", masks)
    parts = folder.parts
    if "JPEGImages" in parts:
        at = len(parts) - 1 - parts[::-1].index("JPEGImages")
        masks = Path(*parts[:at], "Annotations", *parts[at + 1 :])
        if masks.is_dir():
            return Film(source, folder, "frames", masks)
    return Film(source, folder, "frames")


def _listed(entry: str, root: Path, found: Found) -> None:
    """One line of a list; paths are relative to the list's folder."""
    path = root.parent / entry
    source = printable(PurePosixPath(entry.replace("\\", "/")))
    if path.is_dir():
        folder = path / "frames" if (path / "frames").is_dir() else path
        if pictures_in(folder):
            film = _of_frames(folder, root.parent)
            found.films.append(Film(source, film.path, "frames", film.masks))
        else:
            found.rejected.append(Rejected(source, "a folder without frames"))
        return
    _file(path, source, "picture" if path.suffix.lower() in IMAGE_SUFFIXES else "video", found)


def _file(path: Path, source: str, kind: Kind, found: Found) -> None:
    try:
        status = path.stat()
    except OSError as error:
        reason = "a link to nothing" if path.is_symlink() else f"cannot be opened: {error.strerror}"
        found.rejected.append(Rejected(source, reason))
        return
    if not stat.S_ISREG(status.st_mode):
        found.rejected.append(Rejected(source, "not a regular file"))
    elif status.st_size == 0:
        found.rejected.append(Rejected(source, "the file is empty (0 bytes)"))
    elif not os.access(path, os.R_OK):
        found.rejected.append(Rejected(source, "no permission to read it"))
    else:
        found.films.append(Film(source, path, kind))


def prefixed(roots: Sequence[Path]) -> list[str]:
    """What stands before the sources of each of several inputs: its folder's name, made unique."""
    if len(roots) == 1:
        return [""]
    names: list[str] = []
    for root in roots:
        name = base = printable(root.resolve().name)
        number = 2
        while name in names:
            name, number = f"{base}-{number}", number + 1
        names.append(name)
    return [f"{name}/" for name in names]
