"""What all probes share: one pass for several labels, clips that nobody could decode, unequal groups, chance, shares of ranks."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fbm_dist.evaluation.config import OfEncoders
from fbm_dist.evaluation.encoders.candidates import candidates
from fbm_dist.evaluation.encoders.features import Features
from fbm_dist.evaluation.labelled.clips import LabelledClips, labelled_clips
from fbm_dist.evaluation.measures import probing
from fbm_dist.evaluation.measures.comparison import Column
from fbm_dist.evaluation.measures.probing import (
    CHANCE,
    Question,
    all_tested,
    answers,
    chance_of,
    decoded,
    linear,
    majority,
    question,
    scored,
)
from fbm_dist.schema import Data, LinearProbe, Training
from fbm_dist.training.distributed import World, start
from tests.distributed import run_ranks

ALONE = World(0, 0, 1, 1, torch.device("cpu"))
CUT: Any = SimpleNamespace(seeds=(0, 1), test_groups=(), split="auto", folds=4)


def clips(label: str = "colour", number: int = 24) -> LabelledClips:
    """`number` clips of 3 classes in 8 groups; two clips a film; all classes in every group."""
    each = np.arange(number)
    return LabelledClips(
        label,
        ("blue", "green", "red"),
        key=np.array([f"clip-{i:02d}" for i in each]),
        target=each % 3,
        film=np.array([f"film-{i // 2}" for i in each]),
        group=np.array([f"group-{i // 3 % 8}" for i in each]),
        split=np.full(number, ""),
    )


def features(asked: Question, **groups: np.ndarray) -> Features:
    return Features(tuple(asked.clips.key.tolist()), groups)


def test_every_clip_is_tested_once_a_seed_and_seeds_draw_other_folds() -> None:
    asked = question(clips(), CUT)
    assert len(asked.splits) == 2
    for split in asked.splits:
        assert sorted(np.concatenate([fold.test for fold in split.folds])) == list(range(24))
    first, second = ([fold.test.tolist() for fold in split.folds] for split in asked.splits)
    assert first != second
    assert len(asked.tested) == 24


def test_one_pass_over_the_label_that_covers_the_others(
    evaluation: Callable[..., OfEncoders], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = evaluation(compare_with=())
    by_group: Any = SimpleNamespace(seeds=(0,), test_groups=(), split="k-fold", folds=3)
    tested = candidates(wanted)
    motion, object_ = (labelled_clips([tested[0].data(wanted.data, label)], label) for label in ("motion", "object"))
    lacking = np.flatnonzero(~np.isin(motion.key, object_.key))
    some = motion.take(np.concatenate([lacking, np.arange(12)]))  # neither label has all of some and object
    read: list[str | None] = []

    def extract(encoder: object, data: Data, **_: object) -> Features:
        read.append(data.filter.labelled)
        return Features((), {})

    monkeypatch.setattr("fbm_dist.evaluation.encoders.features.extract", extract)
    for asked in ([object_, motion], [object_], [some, object_]):
        found = probing.all_features(wanted, tested, [question(clips, by_group) for clips in asked], ALONE)
        assert list(found) == [tested[0].name]
    assert read == ["motion", "object", None]


def test_clips_that_one_encoder_lacks_leave_the_question_for_all() -> None:
    asked = question(clips(), CUT)
    whole = features(asked, x=np.zeros((24, 1)))
    short = Features(whole.key[3:], {"x": np.zeros((21, 1))})
    keys = decoded({"a": [whole, whole], "b": [short]})
    left = asked.of(keys, CUT)
    assert left.clips.key.tolist() == list(whole.key[3:])
    assert max(fold.test.max() for split in left.splits for fold in split.folds) == 20, "positions are of what is left"
    assert asked.of(set(whole.key), CUT) is asked
    with pytest.raises(ValueError, match="one clip"):
        asked.of(set(whole.key[:4]), CUT)


def test_answers_by_group_encoder_and_seed() -> None:
    asked = question(clips(), CUT)
    random = np.random.default_rng(0)
    told, noise = np.eye(3)[asked.clips.target], random.normal(size=(24, 2))
    by_encoder = {
        "random": [features(asked, told=told, noise=noise), features(asked, told=noise, noise=noise)],  # one a seed
        "trained": [features(asked, told=told, only=told)],
    }
    found = answers(asked, by_encoder, linear(LinearProbe()), ALONE)
    assert list(found.columns) == ["told", "noise", "only", "all"], "as the encoders name them, all at the end"
    assert found.unconverged == 0
    assert list(found.columns["only"].probability) == ["trained"]
    right = {
        name: (probability.argmax(axis=2) == asked.clips.target).mean(axis=1)
        for name, probability in found.columns["told"].probability.items()
    }
    assert right["trained"].tolist() == [1, 1], "one encoder, both seeds' folds"
    assert right["random"][0] == 1 > right["random"][1] + 0.2


def test_no_difference_to_a_reference_without_such_features() -> None:
    asked = question(clips(), CUT)
    told = np.tile(np.eye(3)[asked.clips.target], (2, 1, 1))
    column = Column({"a": told, "b": told}, 1 / 3)
    assert scored(column, asked.clips, "a").clip["b"].difference is not None
    alone = scored(column, asked.clips, "elsewhere")
    for cells in (alone.clip, alone.film):
        assert [cells[name].difference for name in "ab"] == [None, None]
        assert cells["a"].value.mean == 1


def test_chance_names_the_most_frequent_class_of_the_training_part() -> None:
    """Classes 0 0 0 1 | test group: 0 1 1 of two films: by clip 1 of 3; by film, whose clips of a class count once, 1 of 2."""
    few = LabelledClips(
        "colour",
        ("blue", "red"),
        key=np.array(list("abcdefg")),
        target=np.array([0, 0, 0, 1, 0, 1, 1]),
        film=np.array(["1", "1", "2", "2", "3", "3", "3"]),
        group=np.array(["train"] * 4 + ["test"] * 3),
        split=np.full(7, ""),
    )
    cut: Any = SimpleNamespace(seeds=(0,), test_groups=("test",), split="auto", folds=5)
    asked = question(few, cut)
    assert chance_of(asked, "clip") == pytest.approx(1 / 3)
    assert chance_of(asked, "film") == 1 / 2
    says = majority(asked).probability[CHANCE]
    assert np.isnan(says[0, :4]).all()
    assert says[0, 4:].tolist() == [[1, 0]] * 3


def test_tested_clips_of_several_questions_count_once() -> None:
    asked = [question(clips("colour"), CUT), question(clips("object").take(np.arange(12)), CUT)]
    found = all_tested(asked)
    assert sorted(found.key.tolist()) == clips().key.tolist()
    assert dict(zip(found.key, found.film, strict=True)) == dict(zip(clips().key, clips().film, strict=True))


def _in_ranks(
    rank: int, make: Callable[[], tuple[Question, Any]], world: World | None = None
) -> dict[str, dict[str, np.ndarray]]:
    asked, by_encoder = make()
    world = world or start(Training(steps=1, engine="torch", device="cpu"))
    found = answers(asked, by_encoder, linear(LinearProbe()), world)
    return {group: dict(column.probability) for group, column in found.columns.items()}


def _made() -> tuple[Question, Any]:
    asked = question(clips(), CUT)
    random = np.random.default_rng(1)
    return asked, {
        name: [features(asked, x=random.normal(size=(24, 4)), y=random.normal(size=(24, 2)))] for name in "ab"
    }


@pytest.mark.distributed
def test_two_ranks_share_the_fits_and_both_know_all_answers() -> None:
    alone = _in_ranks(0, _made, ALONE)
    for found in run_ranks(2, _in_ranks, _made):
        assert found.keys() == alone.keys()
        for group, by_name in alone.items():
            for name, probability in by_name.items():
                np.testing.assert_array_equal(found[group][name], probability)
