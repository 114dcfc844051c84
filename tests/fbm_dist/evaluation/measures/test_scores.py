"""Accuracy by clip and by film against hand-computed cases; intervals on constructed ones."""

from __future__ import annotations

import numpy as np
import pytest

from fbm_dist.evaluation.measures.scores import Right, accuracy, by_clip, by_film, chance, difference


def test_by_clip_keeps_the_seeds_apart() -> None:
    probability = np.array(
        [
            [[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]],
            [[0.6, 0.4], [0.7, 0.3], [0.1, 0.9]],
        ]
    )
    right = by_clip(probability, np.array([0, 0, 1]), np.array(["a", "a", "b"]))
    assert right.value.tolist() == [[1, 0, 1], [1, 1, 1]]
    assert accuracy(right).mean == pytest.approx(5 / 6)


def test_by_film_takes_the_mean_of_its_clips_probabilities() -> None:
    """Film x: clips say 0.9, 0.4, 0.4 for class 0: two of three clips are wrong, the mean 0.567 is right."""
    first = np.array([0.9, 0.4, 0.4, 0.2])
    probability = np.stack([first, 1 - first], axis=1)[None]
    target, film, group = np.zeros(4, dtype=int), np.array(["x", "x", "x", "y"]), np.array(["g", "g", "g", "h"])
    assert by_clip(probability, target, group).value.tolist() == [[1, 0, 0, 0]]
    right = by_film(probability, target, film, group)
    assert right.value.tolist() == [[1, 0]]
    assert right.group.tolist() == ["g", "h"]


def test_by_film_is_the_plain_computation() -> None:
    random = np.random.default_rng(0)
    probability = random.random((2, 60, 3))
    target, film, group = random.integers(0, 3, 60), random.integers(0, 9, 60).astype(str), random.integers(0, 2, 60)
    right = by_film(probability, target, film, group.astype(str))
    units = sorted(set(zip(film.tolist(), target.tolist(), group.astype(str).tolist(), strict=True)))
    assert right.value.shape == (2, len(units))
    expected = []
    for name, wanted, whose in units:
        own = (film == name) & (target == wanted) & (group.astype(str) == whose)
        expected.append((whose, *(probability[:, own].mean(axis=1).argmax(axis=1) == wanted).astype(float)))
    assert sorted(expected) == sorted(zip(right.group.tolist(), *right.value.tolist(), strict=True))


def test_a_film_of_two_classes_counts_once_for_each() -> None:
    probability = np.array([[[0.9, 0.1], [0.3, 0.7]]])
    right = by_film(probability, np.array([0, 1]), np.array(["x", "x"]), np.array(["g", "g"]))
    assert right.value.tolist() == [[1, 1]], "the mean over the whole film would have hidden the second action"


def test_interval_is_over_groups_not_clips() -> None:
    """Two persons, 100 clips each, one always right: only the number of persons limits what is known."""
    right = Right(np.repeat([[1.0, 0.0]], 100, axis=1), np.repeat(["a", "b"], 100))
    found = accuracy(right)
    assert (found.mean, found.low, found.high) == (0.5, 0.0, 1.0)
    scattered = accuracy(Right(np.tile([[1.0, 0.0]], 100), np.arange(200).astype(str)))
    assert scattered.low is not None
    assert scattered.high is not None
    assert 0.4 < scattered.low < 0.5 < scattered.high < 0.6


def test_seeds_that_disagree_widen_the_interval() -> None:
    """Both seeds are right on half of the clips in every group, or one on all and one on none: the mean is the same."""
    group = np.arange(50).astype(str)
    alike = accuracy(Right(np.stack([np.arange(50) % 2, np.arange(50) % 2]).astype(float), group))
    apart = accuracy(Right(np.stack([np.zeros(50), np.ones(50)]), group))
    assert alike.mean == apart.mean == 0.5
    assert (apart.low, apart.high) == (0, 1)
    assert alike.low is not None
    assert alike.low > 0.3


def test_one_group_has_no_interval() -> None:
    found = accuracy(Right(np.array([[1.0, 0.0]]), np.array(["a", "a"])))
    assert (found.mean, found.low, found.high) == (0.5, None, None)


def test_paired_difference_is_sharper_than_the_two_accuracies() -> None:
    """Persons differ a lot, the second encoder is right on one more clip of ten for each: the difference is certain."""
    group = np.repeat(np.arange(8).astype(str), 10)
    base = np.concatenate([np.arange(10) < n for n in range(1, 9)]).astype(float)
    better = np.concatenate([np.arange(10) < n + 1 for n in range(1, 9)]).astype(float)
    found = difference(Right(better[None], group), Right(base[None], group))
    assert found.mean == pytest.approx(0.1)
    assert (found.low, found.high) == (pytest.approx(0.1), pytest.approx(0.1))
    alone = accuracy(Right(base[None], group))
    assert alone.low is not None
    assert alone.high is not None
    assert alone.high - alone.low > 0.2


def test_bootstrap_is_the_same_every_time() -> None:
    right = Right(np.random.default_rng(0).random((1, 40)), np.repeat(np.arange(8).astype(str), 5))
    assert accuracy(right) == accuracy(right)
    assert accuracy(right, seed=1) != accuracy(right)


def test_chance_names_the_training_majority() -> None:
    assert chance(np.array([0, 1, 1, 2]), np.array([1, 1, 0, 2])) == 0.5
