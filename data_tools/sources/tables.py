"""Lists and tables of films (.txt, .lst, .csv, .tsv, .parquet), read in a stream: paths or URLs, and what is known about each."""

from __future__ import annotations

import csv
import difflib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, NamedTuple

from data_tools.places import ATTEMPTS, Place, line
from data_tools.sources.download import Absent, download
from data_tools.sources.entries import spelt, suffix_of
from data_tools.sources.labels import INFORMATION, RESERVED, Annotation, annotation
from data_tools.videos import Unusable

TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".parquet"})
LIST_SUFFIXES = TABLE_SUFFIXES | {".txt", ".lst"}

MAX_LIST_BYTES = 1 << 34  # of a list that is fetched
MAX_LINE = 1 << 20  # characters: a longer one is no line of a list
BATCH = 10_000  # rows of a parquet file in memory

Cells = Iterator[tuple[int, Sequence[str | None]]]  # number of the line (row of a parquet file), cells


class Row(NamedTuple):
    """One entry of a list: where it stands (line, or row of a parquet file), what it says, and what is known about the film."""

    number: int
    path: str  # empty: the row has none
    annotation: Annotation | None = None


@dataclass(frozen=True)
class _Wanted:
    """What is asked for: {meaning: column}, {label: column}, and whether columns of other names are labels too."""

    columns: Mapping[str, str] | None
    labels: Mapping[str, str] | None
    others_are_labels: bool


@dataclass(frozen=True)
class _Layout:
    """Which cells of a row are wanted, in this order: one for each meaning (the path is the first), then one for each label."""

    meanings: tuple[str, ...]
    labels: tuple[str, ...]
    places: tuple[int, ...]
    has_header: bool


def read_list(
    there: Place,
    columns: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    attempts: int = ATTEMPTS,
) -> Iterator[Row]:
    """The entries of a list or table, in order, those without a path included (not rows that are all empty).

    .txt, .lst: one a line; a line that begins with # is a comment. .csv: as spreadsheets write it. .tsv: cells between tabs,
    nothing is quoted. .parquet. Text is UTF-8. Columns named as in `RESERVED` have that meaning; every other column of a .csv is
    a label, except those of `INFORMATION`.

    Args:
        there: the file.
        columns: {meaning: column} for tables with other names; then no other column is looked at. If all its columns are
            numbers, they count from 1 and the .csv or .tsv file has no header. YFCC100M's own metadata of 25 columns:
            {path: "17", id: "2", attribution: "5", licence: "18"}.
        labels: {label: column}: these columns alone are labels.
        attempts: of fetching a remote file.
    Raises:
        ValueError: not text, a column that is missing, a span that is none; the text names the file, the line and the columns.
    """
    with on_disk(there, attempts) as path:
        suffix, shown = suffix_of(there), spelt(there)
        if suffix in TABLE_SUFFIXES:
            yield from _read_table(path, suffix, shown, _Wanted(columns, labels, suffix == ".csv"))
            return
        for number, text in _lines(path, shown):
            if text.strip() and not text.lstrip().startswith("#"):
                yield Row(number, text.strip())


def read_labels(
    there: Place, choose: Mapping[str, str] | None = None, attempts: int = ATTEMPTS
) -> dict[str, tuple[Annotation, ...]]:
    """Read a labels.csv: film (as `spelt`, relative to the file) -> its rows.

    Args:
        there: a table with a column `path`; the columns of `RESERVED` have their meaning, those of `INFORMATION` are
            passed over, every other one is a label.
        choose: {label: column}: only these columns, under these names.
        attempts: of fetching a remote file.
    Raises:
        ValueError: no `path` column, a chosen column is missing, a span that is no span; the text names the line.
    """
    found: dict[str, list[Annotation]] = {}
    with on_disk(there, attempts) as path:
        for row in _read_table(path, suffix_of(there), spelt(there), _Wanted(None, choose, True)):
            if row.path and row.annotation is not None:
                found.setdefault(spelt(row.path), []).append(row.annotation)
    return {name: tuple(rows) for name, rows in found.items()}


@contextmanager
def on_disk(there: Place, attempts: int = ATTEMPTS) -> Iterator[Path]:
    """The file itself where it is on this machine; a copy of a remote one, for as long as it is read.

    Raises:
        Absent: there is none.
        ValueError: it cannot be fetched.
    """
    if isinstance(there, Path):
        yield there
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fetched"
        try:
            download(there, path, lambda _: None, attempts, MAX_LIST_BYTES)
        except Absent:
            raise
        except Unusable as error:
            raise ValueError(f"{spelt(there)}: {error}") from None
        yield path


def read_cells(path: Path, shown: str, names: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of a CSV file's columns `names`, which it must have.

    Raises:
        ValueError: not text, or a column is missing; the text begins with `shown`.
    """
    header = _header(path, ".csv", shown)
    for name in names:
        _require(name, header, shown, "")
    places = [header.index(name) for name in names]
    for number, cells in _cells(path, ".csv", shown, places, True):
        yield number, [(cell or "").strip() for cell in cells]


def _read_table(path: Path, suffix: str, shown: str, wanted: _Wanted) -> Iterator[Row]:
    layout = _layout(path, suffix, shown, wanted)
    count = len(layout.meanings)
    for number, cells in _cells(path, suffix, shown, layout.places, layout.has_header):
        texts = [cell.strip() if cell else "" for cell in cells]
        known = {meaning: text for meaning, text in zip(layout.meanings, texts[:count], strict=True) if text}
        values = {label: text for label, text in zip(layout.labels, texts[count:], strict=True) if text}
        if "path" in known:
            try:
                yield Row(number, known["path"], annotation(known, values))
            except ValueError as error:
                raise ValueError(f"{shown}, line {number}: {error}") from None
        elif known or values:
            yield Row(number, "")


def _layout(path: Path, suffix: str, shown: str, wanted: _Wanted) -> _Layout:
    columns, labels = wanted.columns, wanted.labels
    if columns is not None:
        for meaning in columns:
            _require(meaning, sorted(RESERVED), "columns", "", "meaning")
        if "path" not in columns:
            raise ValueError("columns: name the column of `path`, e.g. {path: Download URL}")
    has_header = columns is None or suffix == ".parquet" or not all(map(str.isdecimal, columns.values()))
    header = _header(path, suffix, shown) if has_header else []
    if columns is None:
        _require("path", header, shown, "")
        columns = {name: name for name in header if name in RESERVED}
        if labels is None and wanted.others_are_labels:
            labels = {name: name for name in header if name and name not in RESERVED | INFORMATION}
    labels = labels or {}

    def place(name: str, who: str) -> int:
        if has_header:
            _require(name, header, shown, f", which {who}")
            return len(header) - 1 - header[::-1].index(name)
        if not name.isdecimal() or int(name) < 1:
            raise ValueError(f"{who}: {name!r} is no number of a column; without a header they count from 1")
        return int(name) - 1

    meanings, named = tuple(sorted(columns, key=lambda m: (m != "path", m))), tuple(sorted(labels))
    places = [place(columns[m], f"`columns` names for {m}") for m in meanings]
    places += [place(labels[label], "`labels` names") for label in named]
    return _Layout(meanings, named, tuple(places), has_header)


def _require(name: str, valid: Sequence[str], shown: str, who: str, what: str = "column") -> None:
    if name in valid:
        return
    near = difflib.get_close_matches(name, [v for v in valid if v], 1, cutoff=0.5)
    nearest = f"; the nearest is {near[0]!r}" if near else ""
    raise ValueError(f"{shown}: no {what} {name!r}{who}; it has {', '.join(v for v in valid if v) or 'none'}{nearest}")


def _header(path: Path, suffix: str, shown: str) -> list[str]:
    if suffix == ".parquet":
        import pyarrow.parquet

        with _readable(shown):
            return list(pyarrow.parquet.read_schema(path).names)
    return next(([cell or "" for cell in cells] for _, cells in _text_cells(path, suffix, shown)), [])


def _cells(path: Path, suffix: str, shown: str, places: Sequence[int], has_header: bool) -> Cells:
    """(line, cells at `places`) of every row but the header; empty where a row is too short."""
    if suffix == ".parquet":
        yield from _parquet_cells(path, shown, places)
        return
    for number, cells in islice(_text_cells(path, suffix, shown), int(has_header), None):
        yield number, [cells[place] if place < len(cells) else "" for place in places]


def _text_cells(path: Path, suffix: str, shown: str) -> Cells:
    if suffix == ".tsv":
        for number, text in _lines(path, shown, "\n"):
            yield number, text.split("\t")
        return
    with _readable(shown), path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(text for _, text in _limited(file, shown))
        for cells in reader:
            if cells or reader.line_num == 1:
                yield reader.line_num, cells


def _parquet_cells(path: Path, shown: str, places: Sequence[int]) -> Cells:
    import pyarrow
    import pyarrow.parquet

    number = 0
    with _readable(shown), pyarrow.parquet.ParquetFile(path) as file:
        names = [file.schema_arrow.names[place] for place in places]
        for batch in file.iter_batches(BATCH, columns=list(dict.fromkeys(names))):
            columns = [batch.column(name).cast(pyarrow.string()).to_pylist() for name in names]
            for cells in zip(*columns, strict=True):
                number += 1
                yield number, cells


def _lines(path: Path, shown: str, newline: str | None = None) -> Iterator[tuple[int, str]]:
    with _readable(shown), path.open(encoding="utf-8-sig", newline=newline) as file:
        yield from ((number, text.rstrip("\r\n")) for number, text in _limited(file, shown))


def _limited(file: IO[str], shown: str) -> Iterator[tuple[int, str]]:
    """(number, line with its end); a file that has no ends of lines is not read into memory."""
    for number, text in enumerate(iter(lambda: file.readline(MAX_LINE), ""), 1):
        if len(text) == MAX_LINE:
            raise ValueError(f"{shown}, line {number}: longer than {MAX_LINE} characters: not a list")
        yield number, text


@contextmanager
def _readable(shown: str) -> Iterator[None]:
    """What cannot be read as what its name says is one line to the user."""
    try:
        yield
    except (OSError, UnicodeError, csv.Error, NotImplementedError, KeyError, TypeError) as error:
        raise ValueError(f"{shown}: cannot be read: {line(error)}") from None
    except ValueError as error:  # Arrow's own
        if str(error).startswith(shown):
            raise
        raise ValueError(f"{shown}: cannot be read: {line(error)}") from None
