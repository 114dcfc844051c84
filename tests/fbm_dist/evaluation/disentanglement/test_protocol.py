"""The matrix: what each group spells out is found there and nowhere else, marks and bold, metrics, and what is left out or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_tools.config import ConfigError, load
from fbm_dist.evaluation import evaluate
from fbm_dist.evaluation.disentanglement.config import Disentanglement
from fbm_dist.evaluation.report.text import markdown_table
from fbm_dist.registry.client import connect
from fbm_dist.schema import Data, Filter, Tracking
from tests.datasets import write_dataset
from tests.fbm_dist.evaluation.spelled import spelling

Make = Callable[..., Disentanglement]
BLIND = {"motion": None, "foreground": None, "background": None}
APART = {"motion": "motion", "foreground": "object", "background": None}


def groups(name: str) -> dict[str, str | None]:
    return dict(BLIND if name == "random initialisation" else APART)


@pytest.fixture
def matrix(shards: Path, encoder: Path, tmp_path: Path) -> Make:
    """An evaluation of the tiny encoder beside random initialisation; keywords change it."""

    def make(**changes: Any) -> Disentanglement:
        settings: dict[str, Any] = {
            "encoder": str(encoder),
            "data": Data(path=shards),
            "split": "k-fold",
            "seeds": (0, 1),
            "leaks": {"motion": "background", "object": "motion"},
            "device": "cpu",
            "output": tmp_path / "out",
            "tracking": Tracking(mlflow=False),
        }
        return Disentanglement(**(settings | changes))

    return make


def test_what_each_group_spells_out_is_found_there_alone(
    matrix: Make, registered: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fbm_dist.evaluation.encoders.features.extract", spelling(groups))
    wanted = matrix(encoder="models:/fbm-encoder/1", tracking=Tracking(uri=registered, experiment="matrix"))
    results = evaluate(wanted)
    name = "fbm-encoder v1"
    assert [table.name for table in results.tables if table.shown] == ["summary", "matrix0", "matrix1"]

    found = results.details["matrix"][name]
    chance = results.details["chance"]
    assert list(found) == ["motion", "foreground", "background", "all"]
    assert found["motion"]["motion"] == found["foreground"]["object"] == 1
    assert found["all"] == {"motion": 1, "object": 1}
    assert found["background"]["motion"] == chance["motion"] == 0.5
    assert found["foreground"]["motion"] < 0.7 > found["motion"]["object"]
    assert {value["motion"] for value in results.details["matrix"]["random initialisation"].values()} == {0.5}

    table = results.table("matrix1")
    assert [row.name for row in table.rows][:4] == ["motion", "foreground", "background", "all"]
    assert table.footer == {"motion": "24 (3)", "object": "21 (3)"}, "clips without a label leave that factor alone"
    own = table.row("motion").cells["motion"]
    assert own.mark == "◆"
    assert own.difference is not None
    assert own.difference.mean == 0.5
    text = markdown_table(table).splitlines()
    assert "**100.0 [100,100] ◆" in text[2]
    assert "**100.0" in text[3]
    assert "**" not in text[5], "all groups together do not compete"
    assert results.table("matrix0").row("motion").cells["motion"].difference is None

    cells = results.table("summary").row(name).cells
    assert cells["expected groups"].value.mean == 1
    assert cells["leak: motion in background"].value.mean == 0
    others = {factor: [found[g][factor] for g in APART] for factor in ("motion", "object")}
    assert cells["separation"].value.mean == pytest.approx(np.mean([1 - sorted(v)[-2] for v in others.values()]))
    leak = (found["motion"]["object"] - chance["object"]) / (1 - chance["object"])
    assert cells["leak: object in motion"].value.mean == pytest.approx(leak)
    assert results.table("summary").look("leak: object in motion").better == "lower"
    expected = cells["expected groups"].difference
    assert expected is not None
    assert expected.mean == pytest.approx(1 - results.table("summary").rows[0].cells["expected groups"].value.mean)

    printed = capsys.readouterr().out
    for said in (
        "motion from motion, object from foreground",
        "background is not measured",
        "C 1.0",
        "3 folds by group",
    ):
        assert said in printed
    assert (wanted.output / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((wanted.output / "results.json").read_text())["details"]["matrix"][name] == found
    tags = connect(registered).get_model_version("fbm-encoder", "1").tags
    assert tags["disentanglement.motion.in_motion"] == tags["disentanglement.expected_groups.summary"] == "1.0000"


@pytest.mark.slow  # three encoders read
def test_real_features_of_the_tiny_encoder(matrix: Make) -> None:
    results = evaluate(matrix(linear_probe={"c": 0.1}))
    for table in results.tables:
        for row in table.rows:
            for cell in row.cells.values():
                assert -1 <= cell.value.mean <= 1
    assert results.table("matrix1").columns == ("motion", "object")
    assert any("C 0.1" in note for note in results.notes)


def test_one_factor_of_which_nothing_is_expected(matrix: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fbm_dist.evaluation.encoders.features.extract", spelling(groups))
    some = Data(path=matrix().data.path, filter=Filter(groups=("person-0", "person-1")))
    few = evaluate(matrix(data=some, factors=("motion",), expected={}, leaks={}))
    assert [table.name for table in few.tables if table.shown] == ["matrix0", "matrix1"], "nothing expected: no summary"
    assert few.table("matrix1").columns == ("motion",)


def test_labels_that_cannot_be_probed_are_left_out_and_refused_by_name(
    matrix: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A class of one clip cannot be learnt and tested."""
    monkeypatch.setattr("fbm_dist.evaluation.encoders.features.extract", lambda *_, **__: pytest.fail("computed"))
    few = write_dataset(tmp_path / "few", clips=2, frames=18, masks=False, truth=False)
    with pytest.raises(ValueError, match=r"none of its labels can be probed: motion is left out: .*one clip") as caught:
        evaluate(matrix(data=Data(path=few)))
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="have one clip"):
        evaluate(matrix(data=Data(path=few), factors=("motion",)))
    some = write_dataset(tmp_path / "some", clips=8, frames=18, masks=False, truth=False, labels=["motion"])
    write_dataset(some, clips=1, seed=1, frames=18, masks=False, truth=False)  # the only clip that has an object
    monkeypatch.setattr("fbm_dist.evaluation.encoders.features.extract", spelling(groups))
    results = evaluate(matrix(data=Data(path=some)))
    assert results.table("matrix0").columns == ("motion",)
    assert any(note.startswith("object is left out: ") for note in results.notes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"factors": ("verb",)}, "no label 'verb'.*factors=NAME"),
        ({"factors": ("motion",), "split": "auto"}, "in both train and test"),
        ({"encoder": "nowhere"}, "no encoder at nowhere"),
    ],
)
def test_refused_before_anything_is_computed(
    matrix: Make, changes: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fbm_dist.evaluation.encoders.features.extract", lambda *_, **__: pytest.fail("computed"))
    with pytest.raises(ValueError, match=said) as caught:
        evaluate(matrix(**changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["factors=[a, a]"], "name each once"),
        (["leaks={motion: motion}"], "in expected and in leaks"),
    ],
)
def test_configs_that_contradict_themselves(given: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(Disentanglement, None, ["encoder=random", "data.path=x", *given])
