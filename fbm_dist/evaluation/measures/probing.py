"""What every probe of frozen features shares: the features of all encoders, who answers what about which clips, and the tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from fbm_dist.evaluation.config import OfEncoders
from fbm_dist.evaluation.encoders.candidates import Candidate
from fbm_dist.evaluation.encoders.features import Features, of_every_seed
from fbm_dist.evaluation.labelled.clips import LabelledClips, check_classes
from fbm_dist.evaluation.labelled.splits import Split, split_clips
from fbm_dist.evaluation.measures.comparison import Column, Compared, compare, mean_chance
from fbm_dist.evaluation.measures.linear_probe import Probed, probe
from fbm_dist.evaluation.report.results import Cell, Row, Table
from fbm_dist.schema import LinearProbe
from fbm_dist.training.distributed import World
from fbm_dist.training.monitoring.linear_probe import ALL, with_all

CHANCE = "chance (the most frequent class)"
ONE_SEED = "One seed: the intervals speak of other groups, not of other random initialisations."
Unit = Literal["clip", "film"]
Method = Callable[[np.ndarray, LabelledClips, Split], Probed]  # (features float (n, d), clips, split) -> answers
ByEncoder = Mapping[str, Sequence[Features]]  # one a seed for random, one for others


@runtime_checkable
class Cut(Protocol):
    """How a protocol's config says that clips are cut into training and test."""

    @property
    def seeds(self) -> tuple[int, ...]: ...
    @property
    def test_groups(self) -> tuple[str, ...]: ...
    @property
    def split(self) -> Literal["auto", "k-fold"]: ...
    @property
    def folds(self) -> int: ...


@dataclass(frozen=True)
class Question:
    """A label that features are asked about: the clips that have it, and how they are cut, once a seed."""

    clips: LabelledClips
    splits: tuple[Split, ...]

    @property
    def tested(self) -> LabelledClips:
        """The clips of the test parts, whatever the seed."""
        parts = [fold.test for split in self.splits for fold in split.folds]
        return self.clips.take(np.unique(np.concatenate(parts)))

    def of(self, keys: set[str], cut: Cut) -> Question:
        """The same about these clips alone, e.g. those that could be decoded.

        Raises:
            ValueError: they leave nothing to learn or to test.
        """
        there = np.array([key in keys for key in self.clips.key.tolist()], dtype=bool)
        return self if there.all() else question(self.clips.take(np.flatnonzero(there)), cut)


@dataclass(frozen=True)
class Answers:
    """What all encoders answer.

    Attributes:
        columns: by feature group, in the order of the encoders' own groups, then `all`.
        unconverged: how many fits stopped before they had converged.
    """

    columns: dict[str, Column]
    unconverged: int


def question(clips: LabelledClips, cut: Cut) -> Question:
    """Cut the clips: seeds draw the folds where nothing else does.

    Raises:
        ValueError: a class or a split with which nothing can be learnt or tested.
    """
    check_classes(clips)
    cuts = {"test_groups": cut.test_groups, "folds": cut.folds, "own": cut.split == "auto"}
    return Question(clips, tuple(split_clips(clips, seed=seed, **cuts) for seed in cut.seeds))  # type: ignore[arg-type]


def all_features(
    evaluation: OfEncoders, tested: Sequence[Candidate], questions: Sequence[Question], world: World
) -> dict[str, list[Features]]:
    """Features of the clips of all questions, by encoder: one a seed for random ones. Every rank calls it, all get everything.

    Raises:
        ValueError: as `extract`.
    """
    label = _covering(questions)
    return {
        candidate.name: of_every_seed(
            candidate,
            candidate.data(evaluation.data, label),
            seeds=evaluation.seeds,
            batch=evaluation.batch,
            world=world,
        )
        for candidate in tested
    }


def _covering(questions: Sequence[Question]) -> str | None:
    """The label that all clips in question have, so that one pass over its clips is enough; None: there is none, all are read."""
    keys = [set(q.clips.key.tolist()) for q in questions]
    union = set().union(*keys)
    return next((q.clips.label for q, own in zip(questions, keys, strict=True) if len(own) == len(union)), None)


def decoded(features: ByEncoder) -> set[str]:
    """Keys of the clips that every encoder has features of."""
    return set.intersection(*(set(found.key) for per_seed in features.values() for found in per_seed))


def answers(asked: Question, features: ByEncoder, method: Method, world: World) -> Answers:
    """Ask every group of every encoder's features, and all groups side by side. Every rank takes its share, all get everything.

    Args:
        features: of all clips of the question, as `decoded` and `Question.of` make sure.
    """
    clips = asked.clips
    keys = clips.key.tolist()
    own: list[tuple[str, str, int, Probed]] = []
    with world.agreed():
        job = 0
        for name, per_seed in features.items():
            for i, split in enumerate(asked.splits):
                groups = with_all(per_seed[i % len(per_seed)].of(keys))
                for group, values in groups.items():
                    if job % world.size == world.rank:
                        own.append((group, name, i, method(values, clips, split)))
                    job += 1
    found = [answer for share in world.gather(own) for answer in share]
    rows: dict[str, dict[str, dict[int, np.ndarray]]] = {group: {} for group in _order(features)}
    for group, name, i, probed in found:
        rows[group].setdefault(name, {})[i] = probed.probability
    chance = mean_chance(clips, [fold for split in asked.splits for fold in split.folds])
    columns = {}
    for group, by_name in rows.items():
        stacked = {
            name: np.stack([by_name[name][i] for i in sorted(by_name[name])]) for name in features if name in by_name
        }
        columns[group] = Column(stacked, chance)
    return Answers(columns, sum(not probed.converged for *_, probed in found))


def _order(features: ByEncoder) -> list[str]:
    """The names of all groups, `all` last."""
    names = dict.fromkeys(group for per_seed in features.values() for group in with_all(per_seed[0].groups))
    return sorted(names, key=lambda name: name == ALL)


def linear(settings: LinearProbe) -> Method:
    """Logistic regression on standardised features."""

    def method(values: np.ndarray, clips: LabelledClips, split: Split) -> Probed:
        return probe(values, clips.target, split, len(clips.classes), settings)

    return method


def majority(asked: Question) -> Column:
    """Who always names the most frequent training class, in the form of an encoder's answers."""
    clips = asked.clips
    out = np.full((len(asked.splits), len(clips), len(clips.classes)), np.nan)
    for row, split in zip(out, asked.splits, strict=True):
        for fold in split.folds:
            row[fold.test] = np.eye(len(clips.classes))[np.bincount(clips.target[fold.train]).argmax()]
    chance = mean_chance(clips, [fold for split in asked.splits for fold in split.folds])
    return Column({CHANCE: out}, chance)


def scored(column: Column, clips: LabelledClips, reference: str) -> Compared:
    """As `compare`; no differences where the reference has no such features."""
    if reference in column.probability:
        return compare(column, clips, reference)
    found = compare(column, clips, next(iter(column.probability)))
    clip, film = (
        {name: replace(cell, difference=None) for name, cell in cells.items()} for cells in (found.clip, found.film)
    )
    return Compared(clip, film, found.counts)


def reference_of(tested: Sequence[Candidate]) -> str:
    """The encoder that differences are taken to: the random one, else the first."""
    return next((candidate for candidate in tested if candidate.random), tested[0]).name


def chance_of(asked: Question, unit: Unit) -> float:
    """Accuracy of always naming the most frequent training class."""
    found = scored(majority(asked), asked.clips, CHANCE)
    return (found.clip if unit == "clip" else found.film)[CHANCE].value.mean


def accuracy_table(
    name: str,
    heading: str,
    unit: Unit,
    tested: Sequence[Candidate],
    by_column: Mapping[str, Compared],
    chance: Mapping[str, float],
) -> Table:
    """Accuracies by encoder and column, with the chance row and how many were tested.

    Args:
        chance: by column, as `chance_of` says it; a column may be missing.
    """
    cells = {column: found.clip if unit == "clip" else found.film for column, found in by_column.items()}
    rows = [Row(c.name, {column: found[c.name] for column, found in cells.items() if c.name in found}) for c in tested]
    which = 0 if unit == "clip" else 1
    counts = {column: f"{found.counts[which]} ({found.counts[2]})" for column, found in by_column.items()}
    return Table(
        name=name,
        heading=heading,
        corner="accuracy, %",
        columns=tuple(by_column),
        rows=(*rows, Row(CHANCE, {c: Cell.of(chance[c]) for c in cells if c in chance}, "chance")),
        footer_name=f"tested {unit}s (groups)",
        footer=counts,
    )


def told(asked: Question) -> str:
    """One sentence: how the clips of this label were cut, and what the intervals stand on."""
    groups, seeds = len(set(asked.tested.group.tolist())), len(asked.splits)
    split = f"{asked.splits[0]}{f', mean of {seeds} seeds' if seeds > 1 else ''}"
    stands = (
        f"intervals of 95 % over {groups} groups" if groups > 1 else "one group is tested, so there are no intervals"
    )
    return f"{asked.clips.label}: {split}; {stands}{' and the seeds' if groups > 1 and seeds > 1 else ''}."


def all_tested(questions: Sequence[Question]) -> LabelledClips:
    """The tested clips of several questions, for asking where they come from; targets are not kept."""
    parts = [asked.tested for asked in questions]
    _, once = np.unique(np.concatenate([part.key for part in parts]), return_index=True)

    def joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate(arrays)[once]

    return replace(
        parts[0],
        key=joined([part.key for part in parts]),
        target=np.zeros(len(once), dtype=np.int64),
        film=joined([part.film for part in parts]),
        group=joined([part.group for part in parts]),
        split=joined([part.split for part in parts]),
    )
