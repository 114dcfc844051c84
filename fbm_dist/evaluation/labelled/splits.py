"""Which clips are learnt from and which are tested. A group (person, scene, film) is never in both."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from fbm_dist.evaluation.labelled.clips import LabelledClips
from fbm_dist.schema import Filter

TRAIN, TEST = "train", "test"
Rule = Literal["test_groups", "split", "k-fold"]


@dataclass(frozen=True)
class Fold:
    """Positions of clips, and how the loader is told to read one part alone: by the tested groups, or by split."""

    train: np.ndarray
    test: np.ndarray
    without: tuple[str, ...] = ()
    split: str | None = None

    def filter(self, given: Filter) -> Filter:
        """`given`, narrowed to the training part."""
        excluded = tuple(sorted({*given.exclude_groups, *self.without}))
        return given.model_copy(update={"exclude_groups": excluded, "split": self.split or given.split})

    def test_filter(self, given: Filter) -> Filter:
        """`given`, narrowed to the test part."""
        return given.model_copy(update={"split": TEST} if self.split else {"groups": self.without})


@dataclass(frozen=True)
class Split:
    """All folds. Every clip is tested at most once; under k-fold each exactly once."""

    rule: Rule
    folds: tuple[Fold, ...]

    def __str__(self) -> str:
        if self.rule == "split":
            return "the data set's own train and test"
        if self.rule == "test_groups":
            return "given test groups"
        return f"{len(self.folds)} folds by group, each clip tested once"


def split_clips(
    clips: LabelledClips, *, test_groups: tuple[str, ...], folds: int, seed: int, own: bool = True
) -> Split:
    """Test groups if any are given, else the data set's own train/test, else k folds by group.

    Args:
        own: False passes over the data set's own train and test.
        folds: at most this many; never more than there are groups.
        seed: draws the folds; the two other rules leave nothing to chance.
    Raises:
        ValueError: unknown test group, group in both splits, too few groups, a class that is tested but never learnt.
    """
    if test_groups:
        found = Split("test_groups", (_by_groups(clips, test_groups),))
    elif own and {TRAIN, TEST} <= set(clips.split):
        found = Split("split", (_by_own_split(clips),))
    else:
        found = Split("k-fold", _k_folds(clips, folds, seed))
    for fold in found.folds:
        leaked = set(clips.group[fold.train]) & set(clips.group[fold.test])
        assert not leaked, f"groups in training and test: {leaked}"
    _check_learnable(clips, found)
    return found


def _by_groups(clips: LabelledClips, test_groups: tuple[str, ...]) -> Fold:
    groups = sorted({*clips.group.tolist()})
    unknown = sorted(set(test_groups) - set(groups))
    if unknown:
        shown = ", ".join(groups[:12]) + (" ..." if len(groups) > 12 else "")
        raise ValueError(f"test_groups {', '.join(unknown)}: no such group among the labelled clips; groups: {shown}")
    test = np.isin(clips.group, test_groups)
    if test.all():
        raise ValueError("test_groups names every group; leave some to learn from")
    return Fold(np.flatnonzero(~test), np.flatnonzero(test), test_groups)


def _by_own_split(clips: LabelledClips) -> Fold:
    train, test = clips.split == TRAIN, clips.split == TEST
    leaked = sorted({*clips.group[train].tolist()} & {*clips.group[test].tolist()})
    if leaked:
        raise ValueError(
            f"{len(leaked)} groups are in both train and test (the first: {leaked[0]!r}); correct `split` in labels.csv, "
            "or give test_groups=[...]"
        )
    return Fold(np.flatnonzero(train), np.flatnonzero(test), split=TRAIN)


def _k_folds(clips: LabelledClips, count: int, seed: int) -> tuple[Fold, ...]:
    groups = sorted({*clips.group.tolist()})
    if len(groups) < 2:
        raise ValueError(
            f"all labelled clips belong to one group ({groups[0]!r}), so none can be held out; give `group` in labels.csv "
            "(person, scene), or a `split` of train and test"
        )
    if count >= len(groups):  # leave one out
        parts = [(np.flatnonzero(clips.group != name), np.flatnonzero(clips.group == name)) for name in groups]
        return tuple(Fold(train, test, (name,)) for name, (train, test) in zip(groups, parts, strict=True))
    most = int(np.bincount(clips.target).max())  # scikit-learn refuses more folds than the largest class has clips
    cutter = StratifiedGroupKFold(max(2, min(count, most)), shuffle=True, random_state=seed)
    with warnings.catch_warnings():  # a class with fewer groups than folds is legal: some folds do not test it
        warnings.simplefilter("ignore", UserWarning)
        parts = list(cutter.split(np.zeros(len(clips)), clips.target, clips.group))
    out = []
    for train, test in parts:
        if len(test):
            out.append(Fold(train, test, tuple(sorted({*clips.group[test].tolist()}))))
    return tuple(out)


def _check_learnable(clips: LabelledClips, split: Split) -> None:
    """A class whose clips are all held out together would count as wrong whatever the encoder does."""
    for fold in split.folds:
        unlearnt = sorted(set(clips.target[fold.test]) - set(clips.target[fold.train]))
        if unlearnt:
            name = clips.classes[unlearnt[0]]
            where = sorted({*clips.group[clips.target == unlearnt[0]].tolist()})
            raise ValueError(
                f"class {name!r} of label {clips.label!r} is tested but never learnt ({split}): its clips are in "
                f"{len(where)} group{'s' if len(where) > 1 else ''} ({', '.join(where[:3])}); add clips of other "
                "groups, choose other test_groups, or name its keys in data.filter.exclude_keys"
            )
        if len(set(clips.target[fold.train])) < 2:
            raise ValueError(
                f"the training part has clips of {len(set(clips.target[fold.train]))} class of label {clips.label!r} only "
                f"({split}); give other test_groups, or split=k-fold"
            )
