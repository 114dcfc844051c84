"""Probe: neighbours against scikit-learn's, a rise where features say more, any number of ranks, refusals at the start."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from fbm_dist.clip import Clip
from fbm_dist.data.index.index import Index
from fbm_dist.schema import Probe, Run
from fbm_dist.training.distributed import World, start
from fbm_dist.training.monitoring.probe import check_probe, labelled_sample, nearest_neighbours, probe_check
from tests.distributed import run_ranks
from tests.grouped import write_clips
from tests.runs import make_run
from tests.toys import Solo

ALONE = World(0, 0, 1, 1, torch.device("cpu"))
GROUPS = [f"person-{number // 5}" for number in range(45)]


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three colours, every eleventh clip without a label; nine groups that show all of them."""
    colours = [None if i % 11 == 10 else ("red", "green", "blue")[i % 3] for i in range(45)]
    return write_clips(tmp_path_factory.mktemp("films") / "data", GROUPS, colours=colours)


def run_of(root: Path, **probe: Any) -> Run:
    clip = {"frames": 1, "size": 16, "mask": True}  # the labelled set has none: features need none
    probe = {"neighbours": 3, **probe}
    return make_run(
        root.parent / "run", data={"path": str(root), "clip": clip}, training={"micro_batch": 4}, probe=probe
    )


class Colour(Solo):
    """Features: the mean colour as far as `sight` goes, and a constant."""

    def __init__(self, sight: float) -> None:
        super().__init__()
        self.sight = sight

    def features(self, clip: Clip) -> dict[str, Tensor]:
        mean = clip.video.mean(dim=(2, 3, 4))
        noise = torch.stack([torch.randn(3, generator=torch.Generator().manual_seed(int(k[-4:]))) for k in clip.key])
        return {"colour": self.sight * mean + (1 - self.sight) * noise, "constant": torch.ones(len(clip), 2)}


def look(rank: int, run: Run, sight: float) -> dict[str, float]:
    return probe_check(run).look(Colour(sight), start(run.training))


@pytest.mark.parametrize("neighbours", [1, 7, 500])
def test_neighbours_vote_as_in_scikit_learn(neighbours: int) -> None:
    random = np.random.default_rng(0)
    target = random.integers(0, 5, 300)
    centres = random.normal(size=(5, 16))
    values = (centres[target] + 1.2 * random.normal(size=(300, 16))).astype(np.float32)
    train, test = np.arange(200), np.arange(200, 300)
    reference = KNeighborsClassifier(
        min(neighbours, 200),
        metric="cosine",
        algorithm="brute",
        weights=lambda distance: np.exp((1 - distance) / 0.07),
    ).fit(values[train], target[train])
    arrays = (values[train], target[train], values[test])
    found = nearest_neighbours(*(torch.from_numpy(array) for array in arrays), neighbours, 5)
    assert found.tolist() == reference.predict(values[test]).tolist()
    assert 0.5 < (found.numpy() == target[test]).mean() < 1


def test_accuracy_rises_with_what_the_features_say(films: Path) -> None:
    check = probe_check(run_of(films, linear=True))
    blind, seeing = check.look(Colour(0.0), ALONE), check.look(Colour(1.0), ALONE)
    names = {f"{group}_{kind}" for group in ("colour", "constant", "all") for kind in ("knn", "linear")}
    assert set(blind) == set(seeing) == {f"probe/{name}" for name in names} | {"probe/chance"}
    for name in ("colour_knn", "colour_linear", "all_knn", "all_linear"):
        assert seeing[f"probe/{name}"] > 0.95, name
        assert blind[f"probe/{name}"] < 0.75, name
    assert seeing["probe/constant_knn"] < 0.5
    assert 0.2 < seeing["probe/chance"] < 0.5
    assert seeing["probe/constant_linear"] == seeing["probe/chance"], "a constant tells only which class is frequent"


@pytest.mark.distributed
def test_two_ranks_find_what_one_does(films: Path) -> None:
    run = run_of(films, linear=True, max_clips=33)
    alone = probe_check(run).look(Colour(0.6), ALONE)
    first, second = run_ranks(2, look, run, 0.6)
    assert first == second
    assert first == pytest.approx(alone, rel=1e-6)
    assert 0.3 < alone["probe/colour_knn"] < 1, "neither all right nor all wrong: the order of the clips would show"


@pytest.mark.distributed
def test_a_rank_without_clips_takes_part(films: Path) -> None:
    run = run_of(films, max_clips=20).model_copy(
        update={"training": run_of(films).training.model_copy(update={"micro_batch": 40, "global_batch": 80})}
    )
    first, second = run_ranks(2, look, run, 1.0)
    assert first == second
    assert first["probe/colour_knn"] > 0.8


def test_training_random_numbers_stay_and_broken_features_are_no_number(films: Path) -> None:
    objective = Colour(float("nan"))
    state = torch.get_rng_state()
    figures = probe_check(run_of(films, linear=True)).look(objective, ALONE)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(math.isnan(figures[f"probe/{name}"]) for name in ("colour_knn", "colour_linear", "all_knn"))
    assert not math.isnan(figures["probe/constant_knn"])


def test_only_labelled_clips_are_looked_at_and_no_group_is_cut(films: Path) -> None:
    run = run_of(films)
    assert run.probe is not None
    check_probe(run)
    sample = labelled_sample(run, run.probe)
    assert len(sample.target) == 45 - 4
    assert not (sample.train & sample.test).any()
    assert (sample.train | sample.test).all()
    sides = {}
    for key, place in sample.position.items():
        sides.setdefault(GROUPS[int(key[-4:])], set()).add(bool(sample.train[place]))
    assert all(len(side) == 1 for side in sides.values())
    assert 0.3 < sample.train.mean() < 0.7
    names = Index.open(films).label_names["colour"]
    for key, place in sample.position.items():
        assert names[sample.target[place]] == ("red", "green", "blue")[int(key[-4:]) % 3]


def test_the_first_clips_are_spread_over_the_data_set(films: Path) -> None:
    sample = labelled_sample(run_of(films), Probe(max_clips=18))
    assert len(sample.target) == 18
    assert len({key[-4:-1] for key in sample.position}) >= 4, "clips 0 to 17 would be of two tens"


def test_groups_of_one_class_each_come_to_both_halves(tmp_path: Path) -> None:
    groups = [f"film-{i}" for i in range(12)]  # each film shows one colour
    sample = labelled_sample(run_of(write_clips(tmp_path / "data", groups)), Probe())
    for part in (sample.train, sample.test):
        assert np.bincount(sample.target[part]).tolist() == [2, 2, 2]


def test_own_splits_are_taken_and_others_left_aside(tmp_path: Path) -> None:
    groups = [f"film-{i}" for i in range(24)]
    root = write_clips(tmp_path / "data", groups, splits=("train", "train", "test", "val", None, "train", "test"))
    sample = labelled_sample(run_of(root), Probe())
    for key, place in sample.position.items():
        split = ("train", "train", "test", "val", None, "train", "test")[int(key[-4:]) % 7]
        assert (sample.train[place], sample.test[place]) == (split == "train", split == "test")


def test_a_labelled_set_of_its_own(films: Path, tmp_path: Path) -> None:
    plain = write_clips(tmp_path / "data", ["a", "b"], colours=(None,))
    run = run_of(plain, path=str(films))
    check_probe(run)
    assert probe_check(run).look(Colour(1.0), ALONE)["probe/colour_knn"] > 0.9


@pytest.mark.parametrize(
    ("groups", "settings", "probe", "told"),
    [
        (["a", "b"], {"colours": (None,)}, {}, "no clip has a label; prepare"),
        (["a", "b"], {"colours": ("red",)}, {}, "'colour' has one value only"),
        (["a", "b"], {}, {"label": "action"}, r"no label 'action'.*probe\.label=NAME"),
        (["a"] * 6, {}, {}, "6 labelled clips of 1 groups and 3 classes leave no two classes"),
        (["a", "b"] * 6, {"splits": ("train", "train", "test")}, {}, "2 groups are in both train and test"),
        (["a", "b"] * 3, {}, {"filter": {"split": "val"}}, "no 'val'"),
    ],
)
def test_what_cannot_be_probed_is_refused_at_the_start(
    tmp_path: Path, groups: list[str], settings: dict[str, Any], probe: dict[str, Any], told: str
) -> None:
    root = write_clips(tmp_path / "data", groups, **settings)
    with pytest.raises(ValueError, match=rf"probe: .*{told}") as error:
        check_probe(run_of(root, **probe))
    assert "\n" not in str(error.value)
