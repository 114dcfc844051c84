"""Quick probes: what is spelled out is found, the same figures as while training, several labels, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from data_tools.config import ConfigError, load
from data_tools.dataset import commit_snapshot
from data_tools.shards import write_shard
from fbm_dist import registry
from fbm_dist.evaluation import evaluate
from fbm_dist.evaluation.measures.probing import CHANCE
from fbm_dist.evaluation.probes.config import Neighbours, Probes
from fbm_dist.registry.client import connect
from fbm_dist.schema import Data, Probe, Tracking
from fbm_dist.training.distributed import World
from fbm_dist.training.monitoring.probe import probe_check
from tests.datasets import make_sample
from tests.fbm_dist.evaluation.spelled import spelling
from tests.runs import make_run

Make = Callable[..., Probes]


@pytest.fixture
def probes(shards: Path, encoder: Path, tmp_path: Path) -> Make:
    """An evaluation of the tiny encoder beside random initialisation; keywords change it."""

    def make(**changes: Any) -> Probes:
        settings: dict[str, Any] = {
            "encoder": str(encoder),
            "data": Data(path=shards),
            "label": "motion",
            "split": "k-fold",
            "seeds": (0, 1),
            "neighbours": Neighbours(k=3),
            "device": "cpu",
            "output": tmp_path / "out",
            "tracking": Tracking(mlflow=False),
        }
        return Probes(**(settings | changes))

    return make


def test_what_is_spelled_out_is_found(
    probes: Make, registered: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def groups(name: str) -> dict[str, str | None]:
        return {"told": None if name == "random initialisation" else "motion", "flat": None}

    monkeypatch.setattr("fbm_dist.evaluation.encoders.features.extract", spelling(groups))
    tracking = Tracking(uri=registered, experiment="probes")
    wanted = probes(encoder="models:/fbm-encoder/1", label=None, labels=("motion", "object"), tracking=tracking)
    results = evaluate(wanted)
    names = [
        f"{label}.{method}.{unit}"
        for label in ("motion", "object")
        for method in ("knn", "linear")
        for unit in ("clip", "film")
    ]
    assert [table.name for table in results.tables] == names
    for name in names:
        table = results.table(name)
        assert table.columns == ("told", "flat", "all")
        cells = table.row("fbm-encoder v1").cells
        blind = table.row("random initialisation").cells["told"].value
        if name.startswith("motion"):
            assert (cells["told"].value.mean, cells["told"].value.low, cells["told"].value.high) == (1, 1, 1)
            assert cells["all"].value.mean == 1
            difference = cells["told"].difference
            assert difference is not None
            assert difference.mean == pytest.approx(1 - blind.mean)
            assert blind.mean == cells["flat"].value.mean == 0.5, (
                "classes are equally frequent, and constants say nothing"
            )
        else:
            assert cells["told"].value.mean < 0.7, "motion says nothing of the object"
    motion = results.table("motion.linear.clip")
    assert [row.cells["told"].value.mean for row in motion.rows if row.kind == "chance"] == [0.5]
    assert set(motion.footer.values()) == {"24 (3)"}
    assert set(results.table("object.linear.clip").footer.values()) == {"21 (3)"}, "three clips have no such label"

    printed = capsys.readouterr().out
    for said in (
        "k 3, by cosine",
        "C 1.0",
        "motion: 3 folds by group",
        "paired",
        "12 of 12 tested films were seen",
        CHANCE,
    ):
        assert said in printed
    assert (wanted.output / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((wanted.output / "results.json").read_text())["details"]["labels"]["motion"]["classes"] == [
        "left",
        "right",
    ]
    tags = connect(registered).get_model_version("fbm-encoder", "1").tags
    assert tags["probes.told.motion.linear.clip"] == "1.0000"


def write_films(root: Path, splits: tuple[str | None, ...]) -> Path:
    """24 clips that each are a film and a group; `splits` in turn."""
    samples = []
    for i in range(24):
        sample = make_sample(i, 18, (128, 144), ("motion",), "vp9", False, False, 0, 1)
        metadata = sample.metadata.model_copy(update={"group": sample.metadata.film, "split": splits[i % len(splits)]})
        samples.append(replace(sample, metadata=metadata))
    write_shard(root, "clips", samples)
    commit_snapshot(root, {"made_by": "test"}, ["clips"])
    return root


@pytest.mark.slow  # an encoder is run twice
@pytest.mark.parametrize("own", [True, False], ids=["own split", "test groups"])
def test_the_figures_are_those_of_the_probe_section_of_a_run(tmp_path: Path, own: bool) -> None:
    """The same weights, data and split: while training, and as a protocol. Which way a square moves is not easily told."""
    data = write_films(tmp_path / "data", ("train", "train", "train", "test", "test") if own else (None,))
    family = {"family": "fbm", "size": 64, "width": 0.05}
    clip = {"size": 64, "mask": False}
    section = {"neighbours": 5, "linear": True, "label": "motion"}
    run = make_run(tmp_path / "run", objective=family, data={"path": str(data), "clip": clip}, probe=section)
    torch.manual_seed(0)
    objective = run.objective.build().eval()  # as the trainer has it for a look
    training = probe_check(run).look(objective, World(0, 0, 1, 1, torch.device("cpu")))

    registry.save_encoder(objective.encoder(), run.objective, run.data.clip, tmp_path / "encoder", {})
    assert isinstance(run.probe, Probe)
    groups = () if own else tuple(sorted(_asked(run)))
    assert own or 6 < len(groups) < 18
    wanted = Probes(
        encoder=str(tmp_path / "encoder"),
        compare_with=(),
        data=Data(path=data),
        test_groups=groups,
        neighbours=Neighbours(k=5),
        device="cpu",
        output=tmp_path / "out",
        tracking=Tracking(mlflow=False),
    )
    results = evaluate(wanted)
    found = {
        f"probe/{group}_{method}": cell.value.mean
        for method in ("knn", "linear")
        for row in results.table(f"{method}.clip").rows
        for group, cell in row.cells.items()
        if row.kind == "measured"
    }
    assert found == {name: value for name, value in training.items() if name != "probe/chance"}
    assert training["probe/chance"] == results.table("knn.clip").rows[-1].cells["all"].value.mean
    for name in ("motion_knn", "all_knn", "motion_linear", "all_linear"):
        assert 0.2 < training[f"probe/{name}"] < 1, "neither all right nor all wrong: it could differ"


def _asked(run: Any) -> set[str]:
    """The groups that the probe section asks about where the data set names no split: half of them, by hash."""
    from fbm_dist.training.monitoring.probe import labelled_sample

    sample = labelled_sample(run, run.probe)
    return {f"0-film-{int(key[-4:]):03d}" for key, i in sample.position.items() if sample.test[i]}


def test_one_test_group_has_no_interval_and_one_method_may_do(probes: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fbm_dist.evaluation.encoders.features.extract", spelling(lambda name: {"told": "motion"}))
    results = evaluate(probes(test_groups=("person-2",), neighbours=None, seeds=(0,), compare_with=()))
    assert [table.name for table in results.tables] == ["linear.clip", "linear.film"]
    cell = results.table("linear.clip").rows[0].cells["told"]
    assert (cell.value.mean, cell.value.low, cell.difference) == (1, None, None)
    assert any("one group is tested, so there are no intervals" in note for note in results.notes)
    assert not any("paired" in note for note in results.notes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"label": "verb"}, "no label 'verb'"),
        ({"label": None, "labels": ("motion", "verb")}, "no label 'verb'.*labels=NAME"),
        ({"label": None}, "several labels"),
        ({"split": "auto"}, "in both train and test"),
        ({"test_groups": ("person-9",)}, "no such group"),
        ({"encoder": "nowhere"}, "no encoder at nowhere"),
    ],
)
def test_refused_before_anything_is_computed(
    probes: Make, changes: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fbm_dist.evaluation.encoders.features.extract", lambda *_, **__: pytest.fail("computed"))
    with pytest.raises(ValueError, match=said) as caught:
        evaluate(probes(**changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["neighbours=null", "linear_probe=null"], "nothing to measure"),
        (["label=a", "labels=[b]"], "not both"),
        (["labels=[b, b]"], "name each once"),
    ],
)
def test_configs_that_say_nothing_or_too_much(given: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(Probes, None, ["encoder=random", "data.path=x", *given])
