"""Remove the films of owners who opted out, from the shards that hold them and from what was made of these, and keep them out."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import IO, Any

import pyarrow as pa

from data_tools.building.identities import IDENTITIES
from data_tools.building.intake import OPTED_OUT
from data_tools.building.ledger import LEDGER, Outcome, read_ledger, write_ledger
from data_tools.building.lock import exclusive
from data_tools.building.optouts import OPTOUTS, read_names, read_optouts
from data_tools.building.staging import read_lines, to_lines
from data_tools.care.contract import stretch_of
from data_tools.care.examine import rows_of
from data_tools.care.rewriting import successor, sweep, unfinished
from data_tools.care.tars import here
from data_tools.dataset import Dataset, open_dataset, read_dataset, replace_shards
from data_tools.places import Place, listed, place, read_bytes, remove, sha256_of, size_of, write_atomic
from data_tools.progress import Progress, Silent
from data_tools.report.near_duplicates import NEAR_DUPLICATES, write_near_duplicates
from data_tools.schema import Scrub
from data_tools.shards import Stretch, finished_shard, read_table, shard_file, write_stretches

PAGES = ("inspect.",)  # names of what shows pictures of clips begin so; they are drawn again with `inspect`
SHOWN = 5  # unknown ids in the report

Names = tuple[str, str, str | None]  # of a film: its content id, its source, the user's id


@dataclass
class Report:
    """What `scrub` did. `films`, `clips` and `bytes` (of tars) are what this run removed."""

    path: str
    ids: int
    unknown: list[str] = field(default_factory=list)  # ids that are of no film here
    films: int = 0
    clips: int = 0
    shards: int = 0  # rewritten or removed
    bytes: int = 0
    snapshot: str = ""

    def lines(self) -> list[str]:
        """The report, a line each."""
        rows = [f"{self.ids - len(self.unknown)} of {self.ids} ids are of films here"]
        if self.unknown:
            more = ", ..." if len(self.unknown) > SHOWN else ""
            rows.append(
                f"{len(self.unknown)} are of none, and will never be taken: {', '.join(self.unknown[:SHOWN])}{more}"
            )
        done = (
            f"{self.films} films removed: {self.clips} clips, {self.shards} shards rewritten, {self.bytes / 1e6:.1f} MB freed"
            if self.shards
            else "no shard holds any of them"
        )
        return [*rows, f"{self.path}: {done}; snapshot {self.snapshot}"]


def scrub(settings: Scrub, progress: Progress | None = None) -> Report:
    """Remove all clips of the films that a list names, by their content: also what came in under another name or id.

    Only shards that hold such clips are rewritten, under other names, in a new snapshot; the snapshots that held the old shards are
    withdrawn, and the old files removed. The ids, and the films' content ids, go into optouts.txt, which `prepare` obeys. The
    ledger keeps source, id and content id of the films (status skipped, "opted out"), to answer for what became of each source. The
    same command again after an interruption, even kill -9, ends with the same bytes.

    Raises:
        ValueError: no data set; no ids; an unfinished `prepare`; a shard that is damaged.
    """
    progress = progress or Silent()
    root = place(settings.path)
    ids = _ids(place(settings.ids))
    _dataset(root)
    with exclusive(root, "scrub"):
        if unfinished(root):
            raise ValueError(
                f"{root}: an unfinished `prepare` is in the folder, and may hold these films; run it to its end first (or remove staging/)"
            )
        return _Scrub(root, ids, progress).run(Report(settings.path, len(ids)))


class _Scrub:
    """One run, under the lock. What is removed is decided anew from what is there, so that an interrupted run is gone on with."""

    def __init__(self, root: Place, ids: frozenset[str], progress: Progress) -> None:
        self._root, self._ids, self._progress = root, ids, progress
        self._dataset = _dataset(root)
        self._has_ledger = size_of(root / LEDGER) is not None
        self._outcomes = read_ledger(root) if self._has_ledger else []

    def run(self, report: Report) -> Report:
        """Who is out first, then what shows them, then the shards, the ledger, the snapshot; old files last."""
        sweep(self._root, self._dataset)
        named, holding = self._matched()
        report.unknown = sorted(self._ids - {name for names in named for name in names if name})
        films = {film for film, _, _ in named if film}
        self._write_optouts(films)
        replaced = self._rewrite(films, holding, report)
        self._write_ledger(films)
        _forget(self._root / IDENTITIES, films, {source for _, source, _ in named})
        if replaced:
            replace_shards(self._root, replaced, f"scrubbed {report.films} films")
            sweep(self._root, _dataset(self._root))
        self._compare_again(films)
        report.snapshot = _dataset(self._root).snapshots[-1].id
        return report

    def _matched(self) -> tuple[set[Names], dict[str, dict[str, int]]]:
        """The films that are meant, under all their names; and for each shard its films with their clips.

        A film is its content: where an id names one copy, all copies are meant.
        """
        holding: dict[str, dict[str, int]] = {}
        everybody = {(o.film, o.source, o.id) for o in self._outcomes}
        shards = self._dataset.snapshots[-1].shards
        self._progress.stage("looking for films", len(shards), "shards")
        for name in shards:
            groups = self._manifest(name).group_by(["film", "source", "id"]).aggregate([([], "count_all")]).to_pylist()
            everybody |= {(row["film"], row["source"], row["id"]) for row in groups}
            clips: dict[str, int] = {}
            for row in groups:
                clips[row["film"]] = clips.get(row["film"], 0) + row["count_all"]
            holding[name] = clips
            self._progress.advance(1)
        meant = {names for names in everybody if self._ids & set(names)}
        films = {film for film, _, _ in meant if film}
        return meant | {names for names in everybody if names[0] in films}, holding

    def _manifest(self, name: str) -> pa.Table:
        """The manifest of a shard, if it is the one that was written: a film must not be missed.

        Raises:
            ValueError: it is another one.
        """
        stats = finished_shard(self._root, name)
        try:
            if stats is not None and sha256_of(shard_file(self._root, name, "parquet")) == stats.parquet_sha256:
                return read_table(self._root, name)
        except FileNotFoundError:
            pass
        raise _damaged(self._root, name)

    def _write_optouts(self, films: Collection[str]) -> None:
        before = read_optouts(self._root)
        after = before | self._ids | frozenset(films)
        if after != before:
            write_atomic(self._root / OPTOUTS, "".join(f"{name}\n" for name in sorted(after)).encode())

    def _rewrite(
        self, films: Collection[str], holding: dict[str, dict[str, int]], report: Report
    ) -> dict[str, str | None]:
        """Write the shards that hold any of `films` without them, under other names."""
        hit = {name: sum(held.get(film, 0) for film in films) for name, held in holding.items()}
        hit = {name: clips for name, clips in hit.items() if clips}
        report.films = len({film for name in hit for film in holding[name]} & set(films))
        report.clips, report.shards = sum(hit.values()), len(hit)
        for page in (file for file in listed(self._root) if hit and file.startswith(PAGES)):
            remove(self._root / page)
        replaced: dict[str, str | None] = {}
        self._progress.stage("rewriting", len(hit), "shards")
        for name, clips in hit.items():
            stats = finished_shard(self._root, name)
            assert stats is not None, "its manifest was read"
            report.bytes += stats.bytes
            replaced[name] = None
            if clips < stats.clips:
                replaced[name] = new = successor(self._dataset, name)
                with here(shard_file(self._root, name, "tar")) as path, path.open("rb") as file:
                    report.bytes -= write_stretches(self._root, new, self._rest(name, file, films)).bytes
            self._progress.advance(1)
        return replaced

    def _rest(self, name: str, file: IO[bytes], films: Collection[str]) -> Iterator[Stretch]:
        """The samples of a shard that stay."""
        length = os.fstat(file.fileno()).st_size
        for row in rows_of(read_table(self._root, name)):
            if row["film"] in films:
                continue
            try:
                start, size = stretch_of(row, length)
            except ValueError:
                raise _damaged(self._root, name) from None
            data = os.pread(file.fileno(), size, start)
            if hashlib.sha256(data).hexdigest() != row["sha256"]:
                raise _damaged(self._root, name)
            yield Stretch(data, row["shot_rank"])

    def _write_ledger(self, films: Collection[str]) -> None:
        def out(o: Outcome) -> Outcome:
            if o.film not in films and not self._ids & {o.film, o.source, o.id}:
                return o
            return Outcome(
                source=o.source,
                id=o.id,
                film=o.film,
                job=o.job,
                status="skipped",
                reason=OPTED_OUT,
                snapshot=o.snapshot,
            )

        after = [out(outcome) for outcome in self._outcomes]
        if self._has_ledger and after != self._outcomes:
            write_ledger(self._root, after)

    def _compare_again(self, films: Collection[str]) -> None:
        """Groups of films that look alike, where they name one that is gone."""
        path = self._root / NEAR_DUPLICATES
        if not any(named["film"] in films for group in _json_lines(path) for named in group["films"]):
            return
        if _dataset(self._root).snapshots[-1].clips:
            write_near_duplicates(self._root)
        else:
            remove(path)


def _ids(path: Place) -> frozenset[str]:
    try:
        names = read_names(path)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; `ids` names a list of ids, one a line") from None
    if not names:
        raise ValueError(f"{path}: holds no id; give one a line")
    return frozenset(names)


def _dataset(root: Place) -> Dataset:
    """The data set, which may be empty: all its films may have been scrubbed."""
    dataset = read_dataset(root)
    return dataset if dataset is not None and dataset.snapshots else open_dataset(root)


def _damaged(root: Place, name: str) -> ValueError:
    return ValueError(f"{root}: shard {name} is damaged; first run: python -m data_tools repair {root}")


def _forget(path: Place, films: Collection[str], sources: Collection[str]) -> None:
    """Drop the lines of films from a file of JSON lines."""
    lines = _json_lines(path)
    kept = [row for row in lines if row.get("film") not in films and row.get("source") not in sources]
    if len(kept) < len(lines):
        write_atomic(path, to_lines(kept))


def _json_lines(path: Place) -> list[dict[str, Any]]:
    try:
        return list(read_lines(read_bytes(path)))
    except FileNotFoundError:
        return []
