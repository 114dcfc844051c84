"""What became of every film: one Outcome each, staged while a run goes on, and kept as films.jsonl beside the data set."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from data_tools.dataset import read_dataset
from data_tools.places import Place, read_bytes, write_atomic
from data_tools.shards import first_error

LEDGER = "films.jsonl"


class Outcome(BaseModel):
    """What became of one film. The same input and settings give the same outcome: it holds no times and no machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    id: str | None = None  # the user's own, from a table of inputs
    film: str = ""  # id: hash of the bytes; empty where they could not be read
    job: str = ""  # hash of film, settings and labels: what decides whether it must be done again
    status: Literal["used", "skipped", "failed"]  # failed: gave up (the process died, no progress); `retry` tries again
    reason: str = ""
    clips: int = 0
    frames: int = 0  # in the clips
    film_frames: int = 0  # read from the film
    shots: int = 0
    short_frames: int = 0  # left out: rests of shots below `min_frames`
    kept_frames: int = 0  # that the pruning rules would keep
    kept_clips: int = 0
    verdicts: dict[str, int] = {}  # reason -> clips that the pruning rules would not keep
    sizes: tuple[int, ...] = ()  # bytes of each clip in a tar; only while staged
    stamp: str = ""  # of the source when it was read (`identities`); only while staged
    notes: tuple[str, ...] = ()
    snapshot: int = 0  # that its clips came in with


@dataclass(frozen=True)
class Summary:
    """What `prepare` did, for the user and for scripts."""

    output: str
    snapshot: str
    digest: str
    films: int
    used: int
    clips: int
    frames: int
    bytes: int
    shards: int
    new_clips: int
    reasons: dict[str, int]  # why films were not used
    judged: bool  # there are masks, so that the pruning rules could judge
    kept_clips: int
    verdicts: dict[str, int]
    short_frames: int
    alike: int  # groups of films that look alike
    seconds: float

    def lines(self) -> list[str]:
        """The report, a line each."""
        rows = [
            f"films: {self.used} of {self.films} used",
            *(f"  {count} x {reason}" for reason, count in self.reasons.items()),
            f"clips: {self.clips} ({self.new_clips} new), frames: {self.frames}, {self.bytes / 1e6:.1f} MB in {self.shards} shards",
        ]
        if self.short_frames:
            rows.append(f"frames left out in rests of shots below min_frames: {self.short_frames}")
        if self.judged:
            rows.append(f"the pruning rules would keep {self.kept_clips} clips ({self.kept_clips / self.clips:.0%})")
            rows += [f"  {count} x {reason}" for reason, count in self.verdicts.items()]
        if self.alike:
            rows.append(f"{self.alike} groups of films look alike: see near_duplicates.jsonl")
        rows.append(f"snapshot {self.snapshot} of {self.output}, digest {self.digest[:16]}, {self.seconds:.1f} s")
        return rows


def job_hash(film: str, settings: str, *known: Any) -> str:
    """What decides whether a film must be done again: its bytes, the settings, what labels.csv and boxes.csv say of it."""
    return hashlib.sha256(f"{film} {settings} {known!r}".encode()).hexdigest()[:32]


def read_ledger(root: Place) -> list[Outcome]:
    """The committed outcomes of a data set: rows of a snapshot that was never finished do not count.

    Raises:
        ValueError: the file is no ledger, or a data set has none.
    """
    path = root / LEDGER
    dataset = read_dataset(root)
    if dataset is None:
        return []
    try:
        lines = read_bytes(path).decode().removesuffix("\n").split("\n")  # names may hold other line ends
        rows = [Outcome.model_validate_json(line) for line in lines]
    except FileNotFoundError:
        raise ValueError(
            f"{path} is missing, so that nobody knows which films the data set holds; restore it, or give another output folder"
        ) from None
    except ValidationError as error:
        raise ValueError(f"{path}: not a ledger of films: {first_error(error)}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a ledger of films: {error}") from None
    return [row for row in rows if row.snapshot <= len(dataset.snapshots)]


def write_ledger(root: Place, outcomes: Iterable[Outcome]) -> None:
    """Write films.jsonl, sorted, atomically."""
    rows = sorted(outcomes, key=lambda o: (o.source, o.job))
    text = "".join(
        json.dumps(o.model_dump(mode="json", exclude={"sizes", "stamp"}, exclude_defaults=True), ensure_ascii=False)
        + "\n"
        for o in rows
    )
    write_atomic(root / LEDGER, text.encode())


def general(reason: str) -> str:
    """A reason without its particulars, so that reasons can be counted."""
    if reason.startswith("duplicate of"):
        return "duplicate of another film"
    return re.sub(r"\d+", "#", reason)


def counted(outcomes: Iterable[Outcome]) -> dict[str, int]:
    """Why films were not used -> how many; the most frequent first. A reason that stands once keeps its particulars."""
    unused = [o.reason for o in outcomes if o.status != "used"]
    kinds = Counter(general(reason) for reason in unused)
    shown: dict[str, str] = {}
    for reason in unused:
        shown.setdefault(general(reason), reason)
    return {
        (shown[kind] if count == 1 else kind): count
        for kind, count in sorted(kinds.items(), key=lambda k: (-k[1], k[0]))
    }
