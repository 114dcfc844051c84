"""All films of all inputs under the names that a data set uses, with what labels.csv, tables, boxes.csv and layouts say about each."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from data_tools.places import Place, is_local, place
from data_tools.schema import Prepare
from data_tools.sources.boxes import Box, read_boxes
from data_tools.sources.download import Absent
from data_tools.sources.entries import Refused, name_of, printable, resolve, scheme_of, spelt, suffix_of
from data_tools.sources.films import Film, Found, Rejected, film_at, find, is_folder, prefixed, title
from data_tools.sources.folders import Disk
from data_tools.sources.labels import Annotation, filled
from data_tools.sources.layouts import Options, Said, read
from data_tools.sources.tables import LIST_SUFFIXES, TABLE_SUFFIXES, read_labels, read_list

T = TypeVar("T")
Rows = dict[str, tuple[Annotation, ...]]  # by source


@dataclass
class _Known:
    """What the files of one input say about its films, by `spelt` names.

    Attributes:
        origin: the file that the rows stand in.
        files: how many of these files lie among the films.
        layout: what a public data set's own files say, by sources; `rows` and `boxes` go before it.
    """

    origin: Place
    rows: Rows = field(default_factory=dict)
    boxes: dict[str, tuple[Box, ...]] = field(default_factory=dict)
    files: int = 0
    layout: Said = field(default_factory=Said)

    def rows_of(self, film: Film) -> tuple[Annotation, ...]:
        """All that is known of a film but its boxes."""
        return filled(self.of(film, self.rows), self.layout.rows.get(film.source, ()))

    def boxes_of(self, film: Film) -> tuple[Box, ...]:
        """The boxes of a film."""
        return self.of(film, self.boxes) or self.layout.boxes.get(film.source, ())

    def of(self, film: Film, said: Mapping[str, tuple[T, ...]]) -> tuple[T, ...]:
        """What `rows` or `boxes` say of a film, which they may name by its folder of frames."""
        if not said:
            return ()
        name = spelt(film.source)
        return said.get(name) or said.get(f"{name}/frames") or ()

    def masks(self, rows: tuple[Annotation, ...]) -> Place | str | None:
        """The folder of true masks that a film's rows name, or why it cannot be used."""
        named = next((row.truth for row in rows if row.truth), None)
        if named is None:
            return None
        try:
            _, there = resolve(named, self.origin)
        except Refused as refusal:
            return f"its folder of true masks, {_short(named)}: {refusal}"
        missing = isinstance(there, Path) and not Disk(there).is_folder(there)
        return f"its folder of true masks does not exist: {named}" if missing else there

    def truth_folders(self) -> set[Place]:
        """All folders of true masks that rows name, resolved."""
        folders = set()
        for name in {row.truth for rows in self.rows.values() for row in rows if row.truth}:
            with contextlib.suppress(Refused):
                folders.add(resolve(name, self.origin)[1].resolve())
        return folders

    def keep_only(self, names: Collection[str]) -> None:
        """Forget what is said about other films."""

        def kept(name: str) -> bool:
            return name in names or name.removesuffix("/frames") in names

        self.rows = {name: said for name, said in self.rows.items() if kept(name)}
        self.boxes = {name: said for name, said in self.boxes.items() if kept(name)}


def discover(settings: Prepare) -> tuple[Found, Rows]:
    """All films of `settings.input` and what is known about each.

    A table's rows say it themselves; beside folders, films and lists stand `labels_file` and `boxes_file`; a folder that is a public
    data set has files of its own (`layout`).

    Raises:
        ValueError: an input that is not there, a table, labels.csv or boxes.csv that cannot be read or lacks what the config names,
            a folder that is not what `layout` says.
        OSError: a store that cannot be listed.
    """
    everything = Found([], [])
    rows: Rows = {}
    labelled = boxed = tables = False
    roots = [place(name) for name in settings.inputs]
    for root, prefix in zip(roots, prefixed(roots), strict=True):
        found, known = _of_input(root, settings)
        _join(found, known)
        everything.films += [replace(f, source=prefix + f.source) for f in found.films] if prefix else found.films
        everything.rejected += (
            [replace(r, source=prefix + r.source) for r in found.rejected] if prefix else found.rejected
        )
        everything.ignored += found.ignored
        everything.notes += found.notes
        for film in found.films:
            rows[prefix + film.source] = known.rows_of(film)
        labelled, boxed = labelled or bool(known.rows), boxed or bool(known.boxes)
        tables = tables or suffix_of(root) in TABLE_SUFFIXES
    _check(settings, labelled, boxed, tables)
    return everything, rows


def remarks(found: Found, rows: Rows) -> Iterator[str]:
    """What the user may want to know before anything is decoded."""
    unlabelled = sum(not own for own in rows.values())
    if 0 < unlabelled < len(rows):
        yield f"{unlabelled} of {len(rows)} films have no row in labels.csv or a layout: they carry no labels"
    if found.ignored:
        named = "file is no film by its name" if found.ignored == 1 else "files are no films by their names"
        yield f"{found.ignored} {named}: not looked at"
    yield from found.notes


def _of_input(root: Place, settings: Prepare) -> tuple[Found, _Known]:
    if settings.layout is not None and not is_folder(root):
        raise ValueError(f"{spelt(root)}: is no folder, and `layout` is for one; give the folder of the data set")
    if suffix_of(root) in LIST_SUFFIXES and not (is_local(root) and is_folder(root)):
        return _of_list(root, settings)
    if not is_folder(root):
        found, known = find(root), _beside(root, False, settings)
        known.keep_only({spelt(film.source) for film in found.films})
        return found, known
    known = _beside(root, True, settings)
    own = {place(settings.output).resolve()}  # a data set is no film, nor are its figures
    found = find(root, frozenset(own | known.truth_folders()), settings.pictures)
    found.ignored -= known.files
    sources = [spelt(f.source) for f in found.films] + [spelt(r.source) for r in found.rejected]
    names = {*sources, *(f"{source}/frames" for source in sources)}
    for file, named in ((settings.labels_file, known.rows), (settings.boxes_file, known.boxes)):
        reason = f"{file} names it, but there is no film of that name"
        found.rejected += [Rejected(printable(name), reason) for name in named if name not in names]
        names |= named.keys()
    if settings.layout is not None:
        options = Options(settings.layout_split, settings.layout_boxes)
        known.layout = read(settings.layout, root, [film.source for film in found.films], options)
        left_out = known.layout.left_out
        found.films = [film for film in found.films if film.source not in left_out]
        found.rejected += [Rejected(source, reason) for source, reason in left_out.items()]
        found.notes += known.layout.notes
    return found, known


def _of_list(root: Place, settings: Prepare) -> tuple[Found, _Known]:
    """The films that a list or table names, each once."""
    if isinstance(root, Path) and not root.exists():
        raise ValueError(f"{root}: no such input; give a folder, a film, or a list of paths (.txt, .csv)")
    found = Found([], [])
    seen: Rows = {}
    more: dict[str, list[Annotation]] = {}  # of the few films with several rows
    try:
        for row in read_list(root, settings.columns, settings.labels, settings.attempts):
            try:
                name, there = resolve(row.path, root)
            except Refused as refusal:
                where = f"{title(root)}, line {row.number}"
                found.rejected.append(Rejected(f"{where}: {_short(row.path)}" if row.path else where, str(refusal)))
                continue
            if name not in seen:
                suffix = suffix_of(row.path if scheme_of(row.path) else there)
                found.add(film_at(there, printable(name), suffix))
                seen[name] = (row.annotation,) if row.annotation is not None else ()
            elif row.annotation is not None:
                more.setdefault(name, []).append(row.annotation)
    except Absent as error:
        raise ValueError(f"{spelt(root)}: no such input: {error}") from None
    found.films.sort(key=lambda film: film.source)
    is_table = suffix_of(root) in TABLE_SUFFIXES
    known = _beside(root, False, settings, with_labels=not is_table)
    known.keep_only(seen.keys())
    if is_table:
        for name, rows in more.items():
            seen[name] = (*seen[name], *rows)
        known.rows, known.origin = seen, root
    return found, known


def _beside(root: Place, inside: bool, settings: Prepare, with_labels: bool = True) -> _Known:
    """What the files in a folder, or beside a film or list, say."""
    known = _Known(root)
    for name, is_labels in ((settings.labels_file if with_labels else None, True), (settings.boxes_file, False)):
        if name is None or (not inside and name == name_of(root)):
            continue
        folder = root if inside else root.parent
        there = folder / name if inside or isinstance(root, Path) else resolve(name, root)[1]
        if isinstance(there, Path) and not there.is_file():
            continue
        try:
            if is_labels:
                known.rows, known.origin = read_labels(there, settings.labels, settings.attempts), there
            else:
                known.boxes = read_boxes(there, settings.attempts)
        except Absent:
            continue
        known.files += inside and not f"/{name}".count("/.") and not name.startswith("/")
    return known


def _join(found: Found, known: _Known) -> None:
    """Give the films their true masks; a film whose masks are not there is rejected."""
    if not known.rows and not known.boxes and not known.layout.boxes:
        return
    films, both = [], 0
    for film in found.films:
        masks = known.masks(known.of(film, known.rows)) or film.masks
        boxes = known.boxes_of(film)
        if isinstance(masks, str):
            found.rejected.append(Rejected(film.source, masks))
            continue
        both += bool(boxes and masks is not None)
        boxes = boxes if masks is None else ()
        films.append(film if masks is film.masks and not boxes else replace(film, masks=masks, boxes=boxes))
    found.films = films
    if both:
        found.notes.append(f"{both} films have both pictures of true masks and boxes: the pictures are taken")


def _check(settings: Prepare, labelled: bool, boxed: bool, tables: bool) -> None:
    """What the config names must be there."""
    if not labelled and (settings.labels or settings.labels_file not in (None, "labels.csv")):
        raise ValueError(f"no input has a {settings.labels_file}, and the config asks for labels from it")
    if not boxed and settings.boxes_file not in (None, "boxes.csv"):
        raise ValueError(f"no input has a {settings.boxes_file}, and the config asks for boxes from it")
    if settings.columns is not None and not tables:
        raise ValueError("columns is for tables, but no input is one (.csv, .tsv, .parquet)")


def _short(path: str) -> str:
    """A refused entry as it may stand in a report: without secrets, and not too long."""
    text = printable(spelt(path).replace("\0", "\\x00"))
    return text if len(text) <= 200 else f"{text[:200]}..."
