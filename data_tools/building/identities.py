"""Which content a source had when it was last read, so that going on, or adding films, does not read all of them again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import IO

from data_tools.building.staging import read_lines, to_lines
from data_tools.places import Place, read_bytes, write_atomic

IDENTITIES = ".identities.jsonl"  # in the data set's folder


class Identities:
    """Source -> (stamp, film id). A stamp changes with the content: size and time of a file, etag of an object.

    On a disk every new one is appended at once. Object stores cannot append: there the staged outcomes of a run tell what it knew.
    """

    def __init__(self, root: Place, staging: Place) -> None:
        """Read what earlier runs knew."""
        self._final, self._running = root / IDENTITIES, staging / "identities.jsonl"
        self._known: dict[str, tuple[str, str]] = {}
        self._file: IO[bytes] | None = None
        for path in (self._final, self._running):
            try:
                content = read_bytes(path)
            except FileNotFoundError:
                continue
            for row in read_lines(content):
                self._known[row["source"]] = (row["stamp"], row["film"])

    def film(self, source: str, stamp: str) -> str | None:
        """The film id of a source, if it has not changed since."""
        known = self._known.get(source)
        return known[1] if known is not None and stamp and known[0] == stamp else None

    def learn(self, source: str, stamp: str, film: str) -> None:
        """Remember what a source holds."""
        if not stamp or self._known.get(source) == (stamp, film):
            return
        self._known[source] = (stamp, film)
        if isinstance(self._running, Path):
            if self._file is None:
                self._file = self._running.open("ab")
                self._file.write(b"\n")  # after a line that was cut off
            self._file.write(to_lines([_row(source, stamp, film)]))
            self._file.flush()

    def keep(self) -> None:
        """Write all of them beside the data set."""
        if self._file is not None:
            self._file.close()
        text = _text(self._known)
        try:
            if read_bytes(self._final) == text:
                return
        except FileNotFoundError:
            pass
        write_atomic(self._final, text)


def _text(known: Mapping[str, tuple[str, str]]) -> bytes:
    return to_lines(_row(source, *known[source]) for source in sorted(known))


def _row(source: str, stamp: str, film: str) -> dict[str, str]:
    return {"source": source, "stamp": stamp, "film": film}
