"""Which clips are learnt from and which are tested: the three rules, and what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fbm_dist.evaluation.labelled.clips import LabelledClips, check_classes
from fbm_dist.evaluation.labelled.splits import split_clips
from fbm_dist.schema import Filter


def clips(groups: list[str], targets: list[int], splits: list[str] | None = None) -> LabelledClips:
    n = len(groups)
    return LabelledClips(
        "action",
        ("jump", "run", "walk"),
        key=np.array([f"k{i}" for i in range(n)]),
        target=np.array(targets),
        film=np.array([f"f{i}" for i in range(n)]),
        group=np.array(groups),
        split=np.array(splits or [""] * n),
    )


PERSONS = clips(list("aaabbbcccddd"), [0, 1, 2] * 4)


def split(what: LabelledClips, **changes: Any) -> Any:
    settings: dict[str, Any] = {"test_groups": (), "folds": 5, "seed": 0}
    return split_clips(what, **(settings | changes))


def test_k_fold_tests_every_clip_once_and_cuts_no_group() -> None:
    found = split(PERSONS, folds=3)
    assert found.rule == "k-fold"
    tested = np.concatenate([fold.test for fold in found.folds])
    assert sorted(tested) == list(range(12))
    for fold in found.folds:
        assert not set(PERSONS.group[fold.train]) & set(PERSONS.group[fold.test])
        assert sorted([*fold.train, *fold.test]) == list(range(12))
        held_out = {*PERSONS.group[fold.test].tolist()}
        assert set(fold.filter(Filter(exclude_groups=("z",))).exclude_groups) == held_out | {"z"}


def test_never_more_folds_than_groups_and_seeds_draw_them() -> None:
    assert len(split(PERSONS, folds=50).folds) == 4, "leave one person out"
    many = clips([f"g{i // 3}" for i in range(60)], [0, 1, 2] * 20)
    first = [fold.test.tolist() for fold in split(many, folds=5).folds]
    assert first == [fold.test.tolist() for fold in split(many, folds=5).folds]
    assert first != [fold.test.tolist() for fold in split(many, folds=5, seed=1).folds]


def test_a_small_collection_can_be_cut() -> None:
    """Five classes of four clips, each a group of its own: five folds are more than any class has clips."""
    small = clips([f"g{i}" for i in range(12)], [0, 1, 2] * 4)
    assert len(split(small, folds=5).folds) == 4
    assert len(split(small, folds=1000).folds) == 12, "leave one out"
    for fold in split(small, folds=1000).folds:
        assert fold.test_filter(Filter(pruned=True)) == Filter(pruned=True, groups=fold.without)


def test_a_training_part_of_one_class_is_refused() -> None:
    own = clips(list("aabbcc"), [0, 0, 0, 0, 0, 1], ["train"] * 2 + ["test"] * 2 + ["val"] * 2)
    with pytest.raises(ValueError, match="training part has clips of 1 class"):
        split(own)


def test_the_data_sets_own_split_is_taken_and_val_left_out() -> None:
    own = clips(list("aaabbbccc"), [0, 1, 2] * 3, ["train"] * 3 + ["val"] * 3 + ["test"] * 3)
    found = split(own)
    assert found.rule == "split"
    assert [fold.train.tolist() for fold in found.folds] == [[0, 1, 2]]
    assert [fold.test.tolist() for fold in found.folds] == [[6, 7, 8]]
    assert found.folds[0].filter(Filter(pruned=True)) == Filter(pruned=True, split="train")
    assert found.folds[0].test_filter(Filter(pruned=True)) == Filter(pruned=True, split="test")
    assert split(own, own=False).rule == "k-fold"


def test_given_test_groups_come_before_the_data_sets_split() -> None:
    own = clips(list("aaabbbccc"), [0, 1, 2] * 3, ["train"] * 6 + ["test"] * 3)
    found = split(own, test_groups=("b",))
    assert found.rule == "test_groups"
    assert found.folds[0].test.tolist() == [3, 4, 5]
    assert found.folds[0].train.tolist() == [0, 1, 2, 6, 7, 8]


@pytest.mark.parametrize(
    ("what", "changes", "said"),
    [
        (clips(list("aab"), [0, 1, 0], ["train", "train", "test"]), {"test_groups": ("q",)}, "no such group"),
        (clips(list("aab"), [0, 1, 0]), {"test_groups": ("a", "b")}, "leave some to learn from"),
        (clips(list("aaba"), [0, 1, 0, 1], ["train", "train", "test", "test"]), {}, r"in both train and test.*'a'"),
        (clips(list("aaaa"), [0, 1, 0, 1]), {}, "one group"),
        (clips(list("aabb"), [0, 0, 1, 1]), {}, "tested but never learnt"),
        (clips(list("aabb"), [0, 1, 2, 0], ["train"] * 2 + ["test"] * 2), {}, "class 'walk'.*never learnt"),
    ],
)
def test_refused_in_one_line(what: LabelledClips, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        split(what, **changes)
    assert "\n" not in str(caught.value)
    assert "np." not in str(caught.value)


def test_a_class_with_one_clip_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="class 'walk'"):
        check_classes(clips(list("abcde"), [0, 0, 1, 1, 2]))
    with pytest.raises(ValueError, match="only 1"):
        check_classes(clips(list("ab"), [1, 1]))
    check_classes(PERSONS)
