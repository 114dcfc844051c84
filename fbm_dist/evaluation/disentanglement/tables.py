"""The matrices as tables for people, the same for programs, and what they come to in a few figures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from fbm_dist.evaluation.disentanglement.study import Study
from fbm_dist.evaluation.disentanglement.summary import EXPECTED, SEPARATION, Draws, leak_name, statistics
from fbm_dist.evaluation.measures.comparison import Compared
from fbm_dist.evaluation.measures.probing import CHANCE, accuracy_table, majority
from fbm_dist.evaluation.measures.scores import Right, by_clip
from fbm_dist.evaluation.report.results import Cell, Look, Row, Table
from fbm_dist.training.monitoring.linear_probe import ALL

MARK = "◆"  # behind the cells that are expected to be the best


def matrices(study: Study) -> Iterator[Table]:
    """A table an encoder: groups by factors, for people."""
    expected = study.known(study.evaluation.expected)
    for number, candidate in enumerate(study.tested):
        rows = []
        for group in study.groups:
            cells = {}
            for factor in study.factors:
                cell = study.compared[factor][group].clip.get(candidate.name)
                if cell is not None:
                    cells[factor] = replace(cell, mark=MARK) if expected.get(factor) == group else cell
            if cells:
                rows.append(Row(group, cells, ranked=group != ALL))
        yield Table(
            name=f"matrix{number}",
            heading=f"features of {candidate.name}, by clip",
            corner="accuracy, %",
            columns=study.factors,
            rows=(*rows, Row(CHANCE, {factor: Cell.of(value) for factor, value in study.chance.items()}, "chance")),
            footer_name="tested clips (groups)",
            footer={factor: _tested(next(iter(by.values()))) for factor, by in study.compared.items()},
            logged=False,
        )


def _tested(compared: Compared) -> str:
    clips, _, groups = compared.counts
    return f"{clips} ({groups})"


def by_group(study: Study) -> Iterator[Table]:
    """The same figures, a table a group and a row an encoder, for programs: metrics FACTOR.in_GROUP."""
    for group in study.groups:
        by_factor = {factor: study.compared[factor][group] for factor in study.factors}
        table = accuracy_table(f"in_{group}", f"from {group}, by clip", "clip", study.tested, by_factor, study.chance)
        yield replace(table, shown=False)


def summary(study: Study) -> Iterator[Table]:
    """What the matrices come to, a row an encoder; none where nothing is expected of any factor."""
    rights, guess = _rights(study)
    draws = Draws.of(np.concatenate([right.group for right in guess.values()]), len(study.evaluation.seeds))
    expected, leaks = study.known(study.evaluation.expected), study.known(study.evaluation.leaks)
    chance = {factor: draws.means(right) for factor, right in guess.items()}
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, by_group in rights.items():
        parts = {group: by_factor for group, by_factor in by_group.items() if group != ALL}
        accuracy = {group: {f: draws.means(right) for f, right in by.items()} for group, by in parts.items()}
        found[name] = statistics(accuracy, chance, expected, leaks)
    leaking = [leak_name(factor, group) for factor, group in leaks.items()]
    columns = [c for c in (EXPECTED, SEPARATION, *leaking) if any(c in by_column for by_column in found.values())]
    if not columns:
        return
    reference = found[study.reference]
    rows = []
    for candidate in study.tested:
        cells = {}
        for column, values in found[candidate.name].items():
            if not np.isfinite(values[0]):  # a leak, where naming the majority is always right
                continue
            compared = candidate.name != study.reference and column in reference
            difference = draws.interval(values - reference[column]) if compared else None
            cells[column] = Cell(draws.interval(values), difference)
        rows.append(Row(candidate.name, cells))
    nothing = dict.fromkeys(columns, Cell.of(0.0))
    if EXPECTED in columns:
        nothing[EXPECTED] = Cell.of(float(np.mean([chance[factor][0] for factor in expected])))
    yield Table(
        name="summary",
        heading="in a few figures",
        corner="%",
        columns=tuple(columns),
        rows=(*rows, Row(CHANCE, nothing, "chance")),
        looks={column: Look(better="lower") for column in leaking},
    )


def _rights(study: Study) -> tuple[dict[str, dict[str, dict[str, Right]]], dict[str, Right]]:
    """Which tested clips were answered right: [encoder][group][factor]; and [factor] by who always names the majority."""
    rights: dict[str, dict[str, dict[str, Right]]] = {}
    guess: dict[str, Right] = {}
    for asked in study.questions:
        factor, clips = asked.clips.label, asked.tested
        tested = np.isin(asked.clips.key, clips.key)
        for group, column in study.columns[factor].items():
            for name, probability in column.probability.items():
                right = by_clip(probability[:, tested], clips.target, clips.group)
                rights.setdefault(name, {}).setdefault(group, {})[factor] = right
        guess[factor] = by_clip(majority(asked).probability[CHANCE][:, tested], clips.target, clips.group)
    return rights, guess
