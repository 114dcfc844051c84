"""The one interface of this room: a folder as a data set's authors distribute it -> what is known about each of its films."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from data_tools.places import Place, listed, read_bytes, size_of
from data_tools.sources.boxes import Box
from data_tools.sources.entries import spelt
from data_tools.sources.films import VIDEO_SUFFIXES
from data_tools.sources.labels import Annotation

MAX_LIST_BYTES = 1 << 28  # of a list or an annotation file: a larger one is none


@dataclass(frozen=True)
class Options:
    """What a user chooses of a data set.

    Attributes:
        split: which of the official splits.
        boxes: which of its box annotations; None: no boxes are read.
    """

    split: int | str = 1
    boxes: str | None = None


@dataclass
class Said:
    """What a layout says about films, by their sources, as labels.csv and boxes.csv would have said it.

    Attributes:
        rows: annotations, several where they are of spans of frames.
        boxes: true masks.
        left_out: films that are not asked for, with the reason.
        notes: what the user may want to know.
    """

    rows: dict[str, tuple[Annotation, ...]] = field(default_factory=dict)
    boxes: dict[str, tuple[Box, ...]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def note(self, sources: Sequence[str], what: str) -> None:
        """A note about films, if there are any."""
        if sources:
            self.notes.append(f"{len(sources)} films {what} (the first: {sources[0]})")


# (folder, sources of its films, what is chosen) -> what is known. ValueError, one line: not such a folder, or a list is missing.
Reader: TypeAlias = Callable[[Place, Sequence[str], Options], Said]


def stem_of(source: str) -> str:
    """The name of a film without its folders and the ending of a video file."""
    name = source.rpartition("/")[2]
    stem, suffix = posixpath.splitext(name)
    return stem if suffix.lower() in VIDEO_SUFFIXES else name


def places(root: Place, names: Sequence[str]) -> Iterator[Place]:
    """Where the archives of a data set may have been unpacked: `names` in the folder of films, then beside it.

    An empty name is the folder itself.
    """
    inside = root.absolute() if isinstance(root, Path) else root
    for folder in (inside, inside.parent):
        for name in names:
            yield folder / name if name else folder


def folder_with(root: Place, names: Sequence[str], is_wanted: Callable[[str], bool]) -> tuple[Place, list[str]] | None:
    """The first of `places` that directly holds files of wanted names, and these names."""
    for folder in places(root, names):
        found = [name for name in listed(folder) if is_wanted(name)]
        if found:
            return folder, found
    return None


def file_at(root: Place, names: Sequence[str]) -> Place | None:
    """The first of `places` that is a file."""
    return next((there for there in places(root, names) if size_of(there) is not None), None)


def bytes_of(there: Place) -> bytes:
    """All of a small file.

    Raises:
        ValueError: it is not there, cannot be read, or is too large to be a list.
    """
    try:
        size = size_of(there)
        if size is not None and size > MAX_LIST_BYTES:
            raise ValueError(f"{spelt(there)}: {size} bytes: too large for a list")
        return read_bytes(there)
    except OSError as error:
        what = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror or error}"
        raise ValueError(f"{spelt(there)}: {what}") from None


def lines_of(there: Place) -> Iterator[tuple[int, str]]:
    """(number, text) of the lines of a list that are not empty, without blanks at their ends.

    Raises:
        ValueError: as `bytes_of`, or it is no text.
    """
    try:
        text = bytes_of(there).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{spelt(there)}: is no text (UTF-8)") from None
    yield from ((number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip())


def bad_line(there: Place, number: int, expected: str) -> ValueError:
    """A line of a list that is none."""
    return ValueError(f"{spelt(there)}, line {number}: expected {expected}")


def missing(root: Place, what: str, advice: str) -> ValueError:
    """A list that a layout cannot do without."""
    return ValueError(f"{spelt(root)}: no {what} in it or beside it; {advice}, or leave out `layout`")


def wrong_folder(root: Place, data_set: str, form: str) -> ValueError:
    """A folder in which no film is the data set's."""
    return ValueError(
        f"{spelt(root)}: no film in it is named as in {data_set} ({form}); give the folder that its archive unpacks to, "
        "or leave out `layout`"
    )
