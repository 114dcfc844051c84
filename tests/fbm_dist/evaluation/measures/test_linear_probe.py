"""The linear probe: separable features are learnt, noise is not, and the turned problem is the same problem."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from fbm_dist.evaluation.labelled.clips import LabelledClips
from fbm_dist.evaluation.labelled.splits import Split, split_clips
from fbm_dist.evaluation.measures.linear_probe import probe
from fbm_dist.schema import LinearProbe
from fbm_dist.training.monitoring.linear_probe import with_all

CLASSES = 4
RANDOM = np.random.default_rng(0)
TARGET = np.tile(np.arange(CLASSES), 30)


def by_group() -> Split:
    n = len(TARGET)
    names = np.array([str(i) for i in range(n)])
    group = np.array([f"g{i // 12}" for i in range(n)])
    clips = LabelledClips("action", tuple("abcd"), names, TARGET, names, group, np.array([""] * n))
    return split_clips(clips, test_groups=(), folds=5, seed=0)


def accuracy(features: np.ndarray) -> float:
    found = probe(features, TARGET, by_group(), CLASSES, LinearProbe())
    np.testing.assert_allclose(found.probability.sum(axis=1), 1)
    return float((found.probability.argmax(axis=1) == TARGET).mean())


def test_separable_features_are_learnt_and_noise_is_not() -> None:
    separable = 3 * np.eye(CLASSES)[TARGET] + RANDOM.normal(size=(len(TARGET), CLASSES)) * 0.3
    noise = RANDOM.normal(size=(len(TARGET), 50))
    assert accuracy(separable) > 0.99
    assert accuracy(noise) < 0.45, "chance is 0.25"
    assert accuracy(np.concatenate([separable * 1e-3, noise], axis=1)) > 0.9, "a group's scale must not matter"


def test_more_features_than_clips_give_what_scikit_learn_gives() -> None:
    features = RANDOM.normal(size=(len(TARGET), 300)) + np.repeat(np.eye(CLASSES)[TARGET], 75, axis=1)
    split = by_group()
    found = probe(features, TARGET, split, CLASSES, LinearProbe(max_iterations=5000))
    assert found.converged
    fold = split.folds[0]
    scaler = StandardScaler().fit(features[fold.train])
    model = LogisticRegression(max_iter=5000, tol=1e-6).fit(scaler.transform(features[fold.train]), TARGET[fold.train])
    expected = model.predict_proba(scaler.transform(features[fold.test]))
    np.testing.assert_allclose(found.probability[fold.test], expected, atol=5e-3)


def test_a_fit_that_was_cut_short_is_told() -> None:
    features = RANDOM.normal(size=(len(TARGET), 20))
    assert not probe(features, TARGET, by_group(), CLASSES, LinearProbe(max_iterations=1)).converged


def test_clips_that_are_in_no_test_part_stay_unknown() -> None:
    split = by_group()
    one = Split("test_groups", split.folds[:1])
    found = probe(RANDOM.normal(size=(len(TARGET), 5)), TARGET, one, CLASSES, LinearProbe())
    known = np.flatnonzero(np.isfinite(found.probability).all(axis=1))
    assert known.tolist() == sorted(split.folds[0].test.tolist())


def test_all_groups_side_by_side() -> None:
    groups = {"motion": np.ones((2, 3)), "foreground": np.zeros((2, 1))}
    found = with_all(groups)
    assert list(found) == ["motion", "foreground", "all"]
    assert found["all"].tolist() == [[1, 1, 1, 0]] * 2
    assert list(with_all({"only": np.ones((2, 3))})) == ["only"]
