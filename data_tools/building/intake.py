"""Which films are read and made, and what becomes of each: the same answer in whatever order workers finish."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from data_tools.building.identities import Identities
from data_tools.building.ledger import Outcome, job_hash
from data_tools.building.stages import Content, FilmJob, ReadJob
from data_tools.building.staging import Staging
from data_tools.clips import settings_hash
from data_tools.execution.events import Done, Executor, Failed
from data_tools.places import is_local
from data_tools.progress import Progress
from data_tools.schema import Prepare
from data_tools.sources.entries import is_web
from data_tools.sources.fetch import stamp
from data_tools.sources.films import Film
from data_tools.sources.inputs import Rows
from data_tools.sources.labels import span_edges

OPTED_OUT = "opted out"
CUT = "cut at spans"  # part of the jobs of films that have them: data sets of before are not mixed with those of now
UNREAD = "unread "  # and the source: the job of a film whose content is not known
ASKED = 32  # questions to a store at a time
TAKE = "data_tools.building.stages:take"


class Intake:
    """The films of one run of `prepare`, sorted by source; the first of several with the same content counts."""

    def __init__(
        self,
        films: Sequence[Film],
        rows: Rows,
        before: Sequence[Outcome],
        optouts: frozenset[str],
        settings: Prepare,
        staging: Staging,
        identities: Identities,
    ) -> None:
        self._films, self._rows, self._optouts = films, rows, optouts
        self._settings, self._shaping, self._staging, self._identities = (
            settings,
            settings_hash(settings),
            staging,
            identities,
        )
        final = [o for o in before if not (settings.retry and o.status == "failed")]
        self._decided = {o.job: o for o in final}
        self._packed = {o.film: o for o in before if o.status == "used"}
        staged = {name: o for name, o in staging.outcomes().items() if not (settings.retry and o.status == "failed")}
        self._staged = {name: o for name, o in staged.items() if o.film and staging.whole(name, o.sizes)}
        for outcome in self._staged.values():
            identities.learn(outcome.source, outcome.stamp, outcome.film)
        # films that could not be had: in this run, and, elsewhere than on a disk, in runs before; `retry` asks again
        self._unread = {
            o.source: o for o in [*final, *staged.values()] if o.job.startswith(UNREAD) and o.reason != OPTED_OUT
        }
        self._unread_now = {o.source for o in staged.values() if o.job.startswith(UNREAD)}
        if settings.retry:
            self._unread = {}
        self.opted_out = 0  # films that did, and are in the data set since before
        self._stamps: dict[int, str] = {}
        self._ids: dict[int, str] = {}
        self._first: dict[str, int] = {}  # film id -> the first film known to have it
        self._ends: dict[int, Outcome] = {}  # of films whose content is not known
        self._numbers: list[int] = []  # of the films that were given out

    @property
    def num_staged(self) -> int:
        """Films that an interrupted run has finished."""
        return len(self._staged)

    def run(self, crew: Executor, progress: Progress) -> None:
        """Read and make what is not known yet.

        Raises:
            ValueError: labels, boxes or masks of films changed since they were packed, or their spans were not cut at then.
            OSError: the output cannot be written.
        """
        progress.stage("preparing", len(self._films), "films")
        todo = self._settle()
        self._refuse_changed()
        progress.advance(len(self._films) - len(todo))
        for event in crew.run(TAKE, self._jobs(todo), self._follow):
            if isinstance(event, Done):
                self._done(self._numbers[event.job], event.result, progress)
            elif isinstance(event, Failed):
                self._failed(self._numbers[event.job], event.reason, progress)
            else:
                progress.advance(frames=event.amount)
        self._refuse_changed()

    def outcomes(self) -> list[Outcome]:
        """What became of every film, in order."""
        found, first = [], dict[str, str]()  # film id -> the first source that has it
        for number, film in enumerate(self._films):
            if number in self._ends:
                found.append(self._ends[number])
                continue
            film_id = self._ids[number]
            packed = self._packed.get(film_id)
            source = packed.source if packed is not None else first.setdefault(film_id, film.source)
            if source != film.source:
                job, reason = job_hash(film_id, film.source), f"duplicate of {source}"
                found.append(self._end(number, "skipped", reason, film_id, job))
                continue
            job = self._job(number)
            found.append(self._decided.get(job) or self._staged[self._name(number, job)])
        return found

    def _settle(self) -> list[int]:
        """Everything that needs no worker; returns the films that need one."""
        todo = []
        packed = {o.source: o for o in self._packed.values()}
        for number, (film, mark) in enumerate(zip(self._films, _stamps(self._films), strict=True)):
            own = {film.source, *(row.id for row in self._rows[film.source] if row.id)}
            remote = not is_local(film.path)
            if own & self._optouts:
                self._opt_out(number, packed.get(film.source))
                continue
            if film.source in self._unread and (remote or film.source in self._unread_now):
                self._ends[number] = self._unread[film.source]
                continue
            self._stamps[number] = mark
            film_id = self._identities.film(film.source, self._stamps[number])
            if film_id is None or self._identified(number, film_id) is not None:
                todo.append(number)
        return todo

    def _jobs(self, todo: Sequence[int]) -> Iterator[ReadJob | FilmJob]:
        for number in todo:
            self._numbers.append(number)
            if number in self._ids:
                yield self._film_job(number)
            else:
                yield ReadJob(self._films[number], self._settings)

    def _follow(self, job: int, result: Any) -> tuple[str, FilmJob] | None:
        """A film was read: it is made by the same worker, unless its content is known."""
        if not isinstance(result, Content) or result.reason:
            return None
        number = self._numbers[job]
        self._identities.learn(self._films[number].source, self._stamps[number], result.film_id)
        work = self._identified(number, result.film_id)
        return (TAKE, work) if work is not None else None

    def _identified(self, number: int, film_id: str) -> FilmJob | None:
        """The content of a film is known; the work that it needs, if any."""
        self._ids[number] = film_id
        if film_id in self._optouts:
            self._opt_out(number, self._packed.get(film_id))
            return None
        earlier = self._first.get(film_id, number)
        self._first[film_id] = min(earlier, number)
        job = self._job(number)
        known = (
            earlier < number or job in self._decided or film_id in self._packed
        )  # packed: done, or a duplicate of that
        return None if known or self._name(number, job) in self._staged else self._film_job(number)

    def _done(self, number: int, result: Any, progress: Progress) -> None:
        if isinstance(result, Content):
            if result.reason:
                self._cannot_be_read(number, "failed" if result.passing else "skipped", result.reason, progress)
        else:
            self._keep(number, result, progress)
        progress.advance(1)

    def _failed(self, number: int, reason: str, progress: Progress) -> None:
        if number in self._ids:
            outcome = self._end(number, "failed", reason, self._ids[number], self._job(number))
            self._staging.put_outcome(self._name(number, outcome.job), outcome)
            self._keep(number, outcome, progress)
        else:
            self._cannot_be_read(number, "failed", reason, progress)
        progress.advance(1)

    def _cannot_be_read(self, number: int, status: Any, reason: str, progress: Progress) -> None:
        outcome = self._ends[number] = self._end(number, status, reason)
        self._staging.put_outcome(job_hash(UNREAD, outcome.source), outcome)
        progress.note(f"{outcome.source}: {reason}")

    def _opt_out(self, number: int, packed: Outcome | None) -> None:
        """A film that opted out is not taken; one that is packed already stays until it is scrubbed."""
        if packed is not None and packed.source == self._films[number].source:
            self.opted_out += 1
            self._ends[number] = packed
        else:
            self._ends[number] = self._end(number, "skipped", OPTED_OUT)

    def _keep(self, number: int, outcome: Outcome, progress: Progress) -> None:
        self._staged[self._name(number, outcome.job)] = outcome
        for text in [outcome.reason] * (outcome.status != "used") + list(outcome.notes):
            progress.note(f"{outcome.source}: {text}")
        if self._settings.masks.kind != "none":
            progress.judged(outcome.kept_clips, outcome.clips)

    def _refuse_changed(self) -> None:
        packed = {number: self._packed.get(film_id) for number, film_id in sorted(self._ids.items())}
        changed = [
            film.source
            for number, known in packed.items()
            if known is not None
            and known.source == (film := self._films[number]).source
            and known.job != self._job(number)
        ]
        if changed:
            raise ValueError(
                f"{self._settings.output}: labels or masks of {len(changed)} films changed since they were packed, or their "
                f"spans were not cut at then (first: {changed[0]}); give another output folder"
            )

    def _film_job(self, number: int) -> FilmJob:
        film, job = self._films[number], self._job(number)
        name, rows = self._name(number, job), self._rows[film.source]
        mark = self._stamps[number]
        return FilmJob(film, self._ids[number], job, name, rows, self._settings, self._staging, mark)

    def _job(self, number: int) -> str:
        film = self._films[number]
        rows = self._rows[film.source]
        more = [*([film.boxes] if film.boxes else []), *([CUT] if span_edges(rows) else [])]
        return job_hash(self._ids[number], self._shaping, rows, *more)

    def _name(self, number: int, job: str) -> str:
        return job_hash(job, self._films[number].source)

    def _end(self, number: int, status: Any, reason: str, film_id: str = "", job: str = "") -> Outcome:
        source = self._films[number].source
        user_id = next((row.id for row in self._rows[source] if row.id), None)
        job = job or f"{UNREAD}{source}"
        return Outcome(source=source, id=user_id, film=film_id, job=job, status=status, reason=reason)


def _stamps(films: Sequence[Film]) -> Iterator[str]:
    """`_stamp` of each; stores are asked for many at a time."""
    if all(is_local(film.path) or film.version or is_web(film.path) for film in films):
        return map(_stamp, films)
    with ThreadPoolExecutor(ASKED) as pool:
        return pool.map(_stamp, films)


def _stamp(film: Film) -> str:
    """As `fetch.stamp`; what was read under a URL is taken to stay there: asking 700,000 of them would take hours."""
    return f"url {hashlib.sha256(str(film.path).encode()).hexdigest()[:20]}" if is_web(film.path) else stamp(film)
