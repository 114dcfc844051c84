"""Find films in folders, on a disk or in an object store: video files, folders of frames (with true masks beside them), pictures."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from data_tools.places import Place, again, line, listed
from data_tools.sources.boxes import Box
from data_tools.sources.entries import is_web, name_of, printable, spelt, suffix_of
from data_tools.sources.folders import Disk, Folder, Store, problem_of, tree_of, version_of

_VIDEO = (
    "3g2 3gp 264 265 asf avi avs divx dv f4v flv gif h261 h263 h264 h265 hevc ivf m1v m2ts m2v m4v mjpeg mjpg mkv mov "
    "mp4 mpeg mpg mpv mts mxf nsv nut obu ogg ogm ogv qt rm rmvb swf ts vob webm wmv y4m"
)
VIDEO_SUFFIXES = frozenset(f".{suffix}" for suffix in _VIDEO.split())
IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})

Kind = Literal["video", "frames", "picture"]


@dataclass(frozen=True, slots=True)
class Film:
    """Something that may become clips.

    Attributes:
        source: its name in the data set: path relative to the input, with forward slashes, printable; or a URL without secrets.
        path: a video file, a picture, or a folder of frames.
        kind: which of them.
        masks: the folder of its true masks, one PNG a frame, where the layout or labels.csv names one.
        boxes: where boxes.csv has any; what is in them is its true masks.
        version: of a remote file, as the listing said it (`folders.version_of`).
    """

    source: str
    path: Place
    kind: Kind
    masks: Place | None = None
    boxes: tuple[Box, ...] = ()
    version: str = ""


@dataclass(frozen=True, slots=True)
class Rejected:
    """Something that looked like a film from outside and is none."""

    source: str
    reason: str


@dataclass
class Found:
    """What an input holds. `ignored` counts files that are no films by their names; `notes` are for the user."""

    films: list[Film]
    rejected: list[Rejected]
    ignored: int = 0
    notes: list[str] = field(default_factory=list)

    def add(self, found: Film | Rejected) -> None:
        """One more."""
        self.films.append(found) if isinstance(found, Film) else self.rejected.append(found)


def find(root: Place, truth: frozenset[Place] = frozenset(), pictures: Literal["frames", "single"] = "frames") -> Found:
    """All films at or below `root` (a folder or one film), sorted by source; no two have the same.

    A folder that directly holds pictures is one film: `SEQ/frames/*.jpg` (+ `SEQ/masks/*.png`) is SEQ,
    `JPEGImages/480p/SEQ/*.jpg` (+ `Annotations/480p/SEQ/*.png`) as DAVIS has it, or any other folder of frames.
    A folder in an object store is listed once and gives the same films as a copy of it on a disk.

    Args:
        root: where to look.
        truth: folders that hold true masks and are no films, resolved.
        pictures: "single" makes a film of each picture instead of each folder.
    Raises:
        ValueError: `root` does not exist, or is on a web server and names no file.
        OSError: the store cannot be listed.
    """
    found = Found([], [])
    if is_web(root) and not name_of(root):
        raise ValueError(f"{spelt(root)}: a web server's folders cannot be listed; give a list of URLs (.txt, .csv)")
    try:
        if is_folder(root):
            _walk(tree_of(root), root, truth, pictures, found)
        elif isinstance(root, Path) and not root.exists():
            raise FileNotFoundError
        else:
            found.add(_file(root, printable(root.name) if isinstance(root, Path) else title(root)))
    except FileNotFoundError:
        raise ValueError(
            f"{spelt(root)}: no such input; give a folder, a film, or a list of paths (.txt, .csv)"
        ) from None
    found.films = _distinct(found.films)
    found.rejected.sort(key=lambda rejected: rejected.source)
    return found


def film_at(there: Place, source: str, suffix: str) -> Film | Rejected:
    """What an entry of a list names. Of a remote one, nothing is asked where its ending says what it is."""
    if not isinstance(there, Path) and (is_web(there) or suffix in VIDEO_SUFFIXES | IMAGE_SUFFIXES):
        return Film(source, there, "picture" if suffix in IMAGE_SUFFIXES else "video")
    tree = tree_of(there)
    try:
        if not tree.is_folder(there):
            return _file(there, source)
        folder = there / "frames" if tree.is_folder(there / "frames") else there
        if not pictures_in(folder):
            return Rejected(source, "a folder without frames")
        return Film(source, folder, "frames", _masks_of(tree, folder))
    except FileNotFoundError:
        return Rejected(source, "no such file in the store")
    except (OSError, ValueError) as error:
        return Rejected(source, f"cannot be looked at: {line(error)}"[:300])


def is_folder(there: Place) -> bool:
    """Is it a folder that can be listed."""
    return not is_web(there) and (not name_of(there) or tree_of(there).is_folder(there))


def pictures_in(folder: Place) -> list[Place]:
    """The pictures directly in a folder, in the order of their names (numbers by value: 2 before 10)."""
    files = list(folder.iterdir()) if isinstance(folder, Path) else [folder / name for name in listed(folder)]
    pictures = [p for p in files if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")]
    return sorted(pictures, key=lambda p: (_by_value(p.stem), p.name))


def prefixed(roots: Sequence[Place]) -> list[str]:
    """What stands before the sources of each of several inputs: its name, made unique."""
    if len(roots) == 1:
        return [""]
    names: list[str] = []
    for root in roots:
        name = base = title(root)
        number = 2
        while name in names:
            name, number = f"{base}-{number}", number + 1
        names.append(name)
    return [f"{name}/" for name in names]


def title(root: Place) -> str:
    """The name of an input, as sources show it."""
    if isinstance(root, Path):
        return printable(root.resolve().name)
    return posixpath.basename(spelt(root))


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


def _walk(tree: Disk | Store, root: Place, truth: frozenset[Place], pictures: str, found: Found) -> None:
    for folder in tree.walk(lambda source, reason: found.rejected.append(Rejected(source, reason))):
        images = []
        for name in folder.names:
            suffix = posixpath.splitext(name)[1].lower()
            if suffix in VIDEO_SUFFIXES:
                found.add(_file_in(tree, folder, name, "video"))
            elif suffix in IMAGE_SUFFIXES:
                images.append(name)
            else:
                found.ignored += 1
        if images and not _holds_masks(tree, folder.place, truth):
            if pictures == "single":
                for name in images:
                    found.add(_file_in(tree, folder, name, "picture"))
            else:
                found.films.append(_of_frames(tree, folder, root))
        elif suffix_of(folder.place) in VIDEO_SUFFIXES and folder.relative:
            found.rejected.append(Rejected(printable(folder.relative), "a folder with the name of a film"))


def _file_in(tree: Disk | Store, folder: Folder, name: str, kind: Kind) -> Film | Rejected:
    source = printable(f"{folder.relative}/{name}" if folder.relative else name)
    file = tree.file(folder, name)
    return Rejected(source, file.problem) if file.problem else Film(source, file.place, kind, version=file.version)


def _of_frames(tree: Disk | Store, folder: Folder, root: Place) -> Film:
    """The film that a folder of frames is, with its masks where the layout has them."""
    named = folder.relative.removesuffix("/frames") if folder.relative != "frames" else ""
    return Film(printable(named) or title(root), folder.place, "frames", _masks_of(tree, folder.place))


def _masks_of(tree: Disk | Store, frames: Place) -> Place | None:
    """The folder of true masks that the layout has for a folder of frames."""
    if frames.name == "frames" and tree.is_folder(frames.parent / "masks"):
        return frames.parent / "masks"
    masks = _counterpart(frames, "JPEGImages", "Annotations")
    return masks if masks is not None and tree.is_folder(masks) else None


def _holds_masks(tree: Disk | Store, folder: Place, truth: frozenset[Place]) -> bool:
    if folder.resolve() in truth:
        return True
    if folder.name == "masks" and tree.is_folder(folder.parent / "frames"):
        return True
    frames = _counterpart(folder, "Annotations", "JPEGImages")
    return frames is not None and tree.is_folder(frames)


def _counterpart(folder: Place, own: str, other: str) -> Place | None:
    """The folder at the same place below `other` as this one is below the nearest `own`."""
    below: list[str] = []
    while folder.name:
        if folder.name == own:
            return folder.parent.joinpath(other, *reversed(below))
        below.append(folder.name)
        folder = folder.parent
    return None


def _file(there: Place, source: str) -> Film | Rejected:
    """A file as a film. FileNotFoundError: the store has none of that name."""
    kind: Kind = "picture" if suffix_of(there) in IMAGE_SUFFIXES else "video"
    problem, version = "", ""
    if isinstance(there, Path):
        problem = problem_of(there)
    elif not is_web(there):
        info = again(f"cannot look at {spelt(there)}", lambda: there.fs.info(there.path))
        problem, version = "the file is empty (0 bytes)" if info["size"] == 0 else "", version_of(info)
    return Rejected(source, problem) if problem else Film(source, there, kind, version=version)


def _distinct(films: list[Film]) -> list[Film]:
    """Sorted by source; of those with the same one (`a/1.png` beside `a/frames/1.png`), all but the first are numbered."""
    seen: set[str] = set()
    distinct = []
    for film in sorted(films, key=lambda film: film.source):
        source, number = film.source, 2
        while source in seen:
            source, number = f"{film.source}~{number}", number + 1
        seen.add(source)
        distinct.append(film if source == film.source else replace(film, source=source))
    return distinct
