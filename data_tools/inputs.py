"""All films of all inputs under the names that a data set uses, with what labels.csv says about each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from data_tools.films import LIST_SUFFIXES, Found, Rejected, find, prefixed, read_list
from data_tools.labels import Annotation, normal, read_labels
from data_tools.schema import Prepare

Rows = dict[str, tuple[Annotation, ...]]  # by source


def discover(settings: Prepare) -> tuple[Found, Rows]:
    """All films of `settings.input` and their rows of labels.csv.

    Raises:
        ValueError: an input that is not there, a labels.csv that cannot be read or lacks what the config names.
    """
    everything = Found([], [])
    known: Rows = {}
    labelled = False
    for root, prefix in zip(settings.inputs, prefixed(settings.inputs), strict=True):
        folder = root if root.is_dir() else root.parent
        rows = _labels_of(root, folder, settings)
        truth = {(folder / a.truth).resolve() for annotations in rows.values() for a in annotations if a.truth}
        found = find(root, frozenset(truth | {settings.output.resolve()}), settings.pictures)
        everything.ignored += found.ignored - bool(rows and root.is_dir())  # labels.csv itself
        everything.rejected += [replace(r, source=prefix + r.source) for r in found.rejected]
        names = {normal(r.source) for r in found.rejected}
        for film in found.films:
            spelt = normal(film.source)
            names |= {spelt, f"{spelt}/frames"}
            own = rows.get(spelt) or rows.get(f"{spelt}/frames") or ()
            named = next((a.truth for a in own if a.truth), None)
            masks = folder / named if named else film.masks
            if masks is not None and not masks.is_dir():
                reason = f"its folder of true masks does not exist: {named}"
                everything.rejected.append(Rejected(prefix + film.source, reason))
                continue
            everything.films.append(replace(film, source=prefix + film.source, masks=masks))
            known[prefix + film.source] = own
        labelled = labelled or bool(rows)
        missing = [name for name in rows if name not in names]
        reason = "labels.csv names it, but there is no film of that name"
        everything.rejected += [Rejected(prefix + name, reason) for name in missing]
    if not labelled and (settings.labels or settings.labels_file not in (None, "labels.csv")):
        raise ValueError(f"no input has a {settings.labels_file}, and the config asks for labels from it")
    return everything, known


def remarks(found: Found, rows: Rows) -> Iterator[str]:
    """What the user may want to know before anything is decoded."""
    unlabelled = sum(not own for own in rows.values())
    if 0 < unlabelled < len(rows):
        yield f"{unlabelled} of {len(rows)} films have no row in labels.csv: they carry no labels"
    if found.ignored:
        yield f"{found.ignored} files are no films by their names: not looked at"


def _labels_of(root: Path, folder: Path, settings: Prepare) -> Rows:
    if root.is_file() and root.suffix.lower() == ".csv":
        return read_labels(root, settings.labels)
    if settings.labels_file is None:
        return {}
    path = folder / settings.labels_file
    if path.is_file() and (root.is_dir() or root.name != path.name):
        rows = read_labels(path, settings.labels)
        if root.is_dir():
            return rows
        listed = {normal(entry) for entry in (read_list(root) if root.suffix.lower() in LIST_SUFFIXES else [root.name])}
        return {name: row for name, row in rows.items() if name in listed or name.removesuffix("/frames") in listed}
    return {}
