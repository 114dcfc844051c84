"""The evaluations that a leaderboard consists of: resolved, run or read back, and what they find taken out by name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from data_tools.places import write_atomic
from fbm_dist.config import ConfigError, load
from fbm_dist.data.index.index import Index
from fbm_dist.data.index.labels import choose_label
from fbm_dist.data.index.selection import digest
from fbm_dist.evaluation.config import Evaluation, OfEncoders, dotted
from fbm_dist.evaluation.encoders.candidates import RANDOM, Candidate, candidates
from fbm_dist.evaluation.leaderboard.config import Leaderboard, Part
from fbm_dist.evaluation.protocols import schema_of
from fbm_dist.evaluation.report.results import Results, Table, metric_name
from fbm_dist.evaluation.report.text import read
from fbm_dist.schema import Data

FINISHED, RESULTS = "finished.json", "results.json"


@dataclass(frozen=True)
class Resolved:
    """One protocol with the leaderboard's encoders put in.

    Attributes:
        tested: the encoders, as they are now.
        identity: what its results depend on: config, weights, data. The code is not part of it.
    """

    part: Part
    evaluation: OfEncoders
    tested: tuple[Candidate, ...]
    identity: dict[str, Any]

    @property
    def folder(self) -> Path:
        """Of its files."""
        return self.evaluation.output


def main_encoder(board: Leaderboard) -> str:
    """The one that the leaderboard is about: the first that is not random."""
    return next((uri for uri in board.encoders if uri != RANDOM), board.encoders[0])


def resolve(board: Leaderboard, part: Part) -> Resolved:
    """Load the part's config, with the encoders of the leaderboard, and look at encoders and data.

    Raises:
        ConfigError: the config cannot be used, or its protocol does not compare encoders.
        ValueError: an encoder, a data set or its label is not there.
    """
    main = main_encoder(board)
    given: dict[str, Any] = {
        **dict(dotted(board.set)),
        **dict(dotted(part.set)),
        "encoder": main,
        "compare_with": [uri for uri in board.encoders if uri != main],
        "output": str(board.output / part.title),
        "tracking": board.tracking.model_dump(mode="json"),
    }
    if board.architecture is not None:
        given["architecture"] = board.architecture.model_dump(mode="json")
    if board.device != "auto":
        given["device"] = board.device
    if board.seeds:
        given["seeds"] = list(board.seeds)
    evaluation = load(_comparing, part.config, [f"{key}={json.dumps(value)}" for key, value in given.items()])
    assert isinstance(evaluation, OfEncoders), "as _comparing chose it"
    try:
        tested = candidates(evaluation)
        _check_label(evaluation)
    except ValueError as error:
        raise ValueError(f"{part.title}: {error}") from None
    identity = {
        "config": evaluation.model_dump(mode="json", exclude={"tracking", "output"}),
        "encoders": {c.uri: c.description.sha256 if c.description else None for c in tested},
        "data": [digest(Index.open(d.path, d.snapshot), d.filter, d.clip) for d in _data_sets(evaluation)],
    }
    return Resolved(part, evaluation, tested, identity)


def _check_label(evaluation: OfEncoders) -> None:
    """A wrong label shall be told now, not when the protocols before have run for hours."""
    Index.open(evaluation.data.path, evaluation.data.snapshot)
    if "label" in type(evaluation).model_fields and not getattr(evaluation, "labels", ()):
        choose_label(evaluation.data, evaluation.label)  # type: ignore[attr-defined]


def _comparing(tree: dict[str, Any]) -> type[Evaluation]:
    schema = schema_of(tree)
    if not issubclass(schema, OfEncoders):
        raise ConfigError(f"the protocol {tree['protocol']} has no rows of encoders; a leaderboard cannot show it")
    return schema


def _data_sets(config: BaseModel) -> Iterator[Data]:
    """Every prepared data set that a config names, however deep."""
    for name in type(config).model_fields:
        value = getattr(config, name)
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, Data):
                yield item
            elif isinstance(item, BaseModel):
                yield from _data_sets(item)


def finished(resolved: Resolved) -> Results | None:
    """What an earlier run of this very evaluation found; None: there is none, or something has changed since."""
    try:
        said = json.loads((resolved.folder / FINISHED).read_text(encoding="utf-8"))
        if said["identity"] != resolved.identity or said["results"] != _sha256(resolved.folder / RESULTS):
            return None
        return read(resolved.folder / RESULTS)
    except (OSError, ValueError, KeyError, TypeError):  # absent or damaged: it is run again
        return None


def mark_finished(resolved: Resolved) -> None:
    """Say that the results in the part's folder are those of this very evaluation."""
    said = {"identity": resolved.identity, "results": _sha256(resolved.folder / RESULTS)}
    write_atomic(resolved.folder / FINISHED, (json.dumps(said, indent=2) + "\n").encode())


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def chosen(part: Part, results: Results) -> dict[str, tuple[Table, str]]:
    """The columns that the part shows: table and column by the figure's name, COLUMN.TABLE.

    Raises:
        ValueError: a name that fits no figure.
    """
    logged = [table for table in results.tables if table.logged]
    known = {f"{metric_name(column)}.{table.name}": (table, column) for table in logged for column in table.columns}
    if not part.columns:
        return {name: found for name, found in known.items() if found[0] is logged[0]}
    out: dict[str, tuple[Table, str]] = {}
    for pattern in part.columns:
        names = [name for name in known if fnmatchcase(name, pattern)]
        if not names:
            raise ValueError(f"columns: {pattern!r} is none of its figures: {', '.join(known)}")
        out |= {name: known[name] for name in names}
    return out
