"""What an evaluation found: tables of figures with intervals, whatever the protocol; values that become text, JSON and metrics."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from fbm_dist.evaluation.encoders.candidates import Candidate
from fbm_dist.evaluation.measures.scores import Interval

Kind = Literal["measured", "chance", "paper"]
Better = Literal["higher", "lower", "neither"]


@dataclass(frozen=True)
class Cell:
    """One figure.

    Attributes:
        value: its mean and 95 % interval (bounds None: there is none), in the table's own unit before `scale`.
        difference: to the reference row, paired; None: that row, or not compared.
        spread: standard deviation over repetitions, where papers report that.
        mark: a sign behind the figure, which a note explains.
    """

    value: Interval
    difference: Interval | None = None
    spread: float | None = None
    mark: str = ""

    @staticmethod
    def of(value: float, spread: float | None = None) -> Cell:
        """A figure without an interval."""
        return Cell(Interval(float(value), None, None), spread=spread)


@dataclass(frozen=True)
class Row:
    """One line of a table: an encoder or method (measured), the chance level, or what a paper reports (not measured here)."""

    name: str
    cells: dict[str, Cell]  # by column; a column may be missing
    kind: Kind = "measured"
    ranked: bool = True  # False: never in bold, e.g. what joins other rows


@dataclass(frozen=True)
class Look:
    """How the figures of a column are told: which are good, times what, with how many decimals."""

    better: Better = "higher"
    scale: float = 100.0
    digits: int = 1


@dataclass(frozen=True)
class Table:
    """Figures of one kind.

    Attributes:
        name: one word, unique among the tables: part of the metrics' names, e.g. clip.
        heading: above the table; `corner`: above the row names: what the figures are, e.g. "accuracy, %".
        columns: in order. `probe: motion` is told as two lines.
        better: which figures are good, for what is shown in bold.
        scale: figures are shown times this, with `digits` decimals; JSON and metrics have them as they are.
        footer: a last line by column, e.g. how many clips were tested.
        logged: its figures become metrics in MLflow and tags of the model's version.
        looks: of columns that differ from better, scale and digits.
        shown: False: for programs alone (results.json, MLflow), where another table tells people the same.
    """

    name: str
    heading: str
    corner: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    better: Better = "higher"
    scale: float = 100.0
    digits: int = 1
    footer_name: str = ""
    footer: dict[str, str] = field(default_factory=dict)
    logged: bool = True
    looks: dict[str, Look] = field(default_factory=dict)
    shown: bool = True

    def look(self, column: str) -> Look:
        """How this column's figures are told."""
        return self.looks.get(column, Look(self.better, self.scale, self.digits))

    def row(self, name: str) -> Row:
        """The measured row of this name."""
        return next(row for row in self.rows if row.name == name and row.kind == "measured")


@dataclass(frozen=True)
class Subject:
    """Who was measured: an encoder, or a method.

    Attributes:
        name: of its rows.
        uri: as the user wrote it; `model`: models:/NAME/VERSION where it is registered.
        sha256: of its weights.
        seen: one sentence: were the tested films seen in pretraining.
    """

    name: str
    uri: str
    model: str | None = None
    sha256: str | None = None
    seen: str = ""

    @staticmethod
    def of(candidate: Candidate, seen: str = "") -> Subject:
        """The subject that an encoder under test is."""
        registered, described = candidate.registered, candidate.description
        return Subject(
            candidate.name,
            candidate.uri,
            registered.uri if registered else None,
            described.sha256 if described else None,
            seen,
        )


@dataclass(frozen=True)
class Results:
    """A whole evaluation.

    Attributes:
        protocol: its room.
        title: what was measured on what.
        main: name of the subject that the evaluation is about.
        notes: what a reader must know to read the figures, a sentence each.
        details: further findings as JSON values: curves, classes, assignments.
        facts: config, split, versions, seconds.
    """

    protocol: str
    title: str
    subjects: tuple[Subject, ...]
    main: str
    tables: tuple[Table, ...]
    notes: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def table(self, name: str) -> Table:
        """The table of this name."""
        return next(table for table in self.tables if table.name == name)

    def metrics(self, subject: str) -> dict[str, float]:
        """Flat names for MLflow, COLUMN.TABLE, e.g. probe.motion.clip."""
        return {
            f"{metric_name(column)}.{table.name}": cell.value.mean
            for table in self.tables
            if table.logged
            for row in table.rows
            if row.kind == "measured" and row.name == subject
            for column, cell in row.cells.items()
        }


def metric_name(column: str) -> str:
    """`probe: motion` -> `probe.motion`; `fine-tuned` -> `fine_tuned`; what MLflow does not take becomes `_`."""
    name = column.replace(": ", ".")
    return "".join(c if c.isalnum() or c == "." else "_" for c in name)
