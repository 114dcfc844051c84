"""Pretrainings that differ in their masks and amount of data alone, really run; the table, the plot, resume and refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from fbm_dist import run as door
from fbm_dist.evaluation.noisy_masks import protocol
from fbm_dist.evaluation.noisy_masks.config import NoisyMasks, Pretraining, Variant
from fbm_dist.evaluation.noisy_masks.figure import draw
from fbm_dist.evaluation.noisy_masks.runs import Trial, run_of
from fbm_dist.evaluation.report.results import Cell, Results, Row, Subject, Table
from fbm_dist.schema import Data, Degrade, Filter, Tracking
from fbm_dist.training.trainer import Summary
from tests.datasets import write_dataset

PRETRAINING = """
objective: {family: fbm, size: 64, width: 0.05}
data: {clip: {frames: 16, size: 64, mask: true}}
training: {steps: 2, global_batch: 4, micro_batch: 4, engine: torch, device: cpu, picture_every: 0, preflight: "off"}
"""
VARIANTS = (
    Variant(name="true masks", masks="truth"),
    Variant(name="uNLC"),
    Variant(name="no masks", degrade=Degrade(kind="full")),
)


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("masked") / "shards", clips=12, frames=16)


def study(masked: Path, tmp_path: Path, **changes: Any) -> NoisyMasks:
    (tmp_path / "pretraining.yaml").write_text(PRETRAINING)
    settings: dict[str, Any] = {
        "pretraining": Pretraining(config=tmp_path / "pretraining.yaml"),
        "data": Data(path=masked),
        "variants": VARIANTS,
        "shares": (0.5,),
        "label": "motion",
        "split": "k-fold",
        "folds": 3,
        "device": "cpu",
        "output": tmp_path / "out",
        "tracking": Tracking(mlflow=False),
    }
    return NoisyMasks(**(settings | changes))


@pytest.mark.slow  # four pretrainings
def test_rows_differ_in_masks_and_data_alone(masked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = study(masked, tmp_path)
    results = door.evaluate(wanted)
    table = results.table("clip")
    assert [row.name for row in table.rows] == [
        "no pretraining",
        "true masks",
        "uNLC",
        "no masks",
        "chance (the most frequent class)",
    ]
    quality = results.details["mask_iou"]
    assert quality["true masks"] == pytest.approx(1)
    assert quality["no masks"] < 0.5 < quality["uNLC"] < 1
    amount = results.table("amount")
    films = results.details["films"]
    assert 0 < films["0.5 of the films"] < films["uNLC"] == 6
    assert [amount.row(name).cells["films"].value.mean for name in ("0.5 of the films", "uNLC")] == [
        films["0.5 of the films"],
        6,
    ]
    seen = {subject.name: subject.seen for subject in results.subjects}
    assert seen["uNLC"] == "6 of 6 tested films were seen in pretraining"
    assert seen["0.5 of the films"] == f"{films['0.5 of the films']} of 6 tested films were seen in pretraining"
    assert (wanted.output / "figure.png").read_bytes().startswith(b"\x89PNG")

    configs = wanted.output.glob("pretraining/*/encoder/config.json")
    encoders = {path.parent.parent.name.rpartition("-")[0]: path for path in configs}
    assert set(encoders) == {"true-masks-seed0", "unlc-seed0", "no-masks-seed0", "0-5-of-the-films-seed0"}
    found = {name: json.loads(path.read_text()) for name, path in encoders.items()}
    assert len({entry["sha256"] for entry in found.values()}) == 4, "each pretraining made another encoder"
    clips = {name: entry["info"]["data"]["clip"] for name, entry in found.items()}
    differing = {key for key in clips["unlc-seed0"] if len({json.dumps(clip[key]) for clip in clips.values()}) > 1}
    assert differing == {"use_truth_as_mask", "degrade"}

    trained: list[str] = []
    again = protocol.evaluate(
        wanted.model_copy(update={"variants": (*VARIANTS, Variant(name="boxes", degrade=Degrade(kind="box")))}),
        lambda run: trained.append(run.run.folder.name) or door.pretrain(run),  # type: ignore[func-returns-value]
    )
    for name in ("uNLC", "no masks"):
        assert again.table("clip").row(name).cells == table.row(name).cells
    steps = [len((wanted.output / "pretraining" / name / "metrics.jsonl").read_text().splitlines()) for name in trained]
    assert len(steps) == 5
    assert len(set(steps)) == 1, "what was finished was not trained again"


def test_another_setting_is_another_run(masked: Path, tmp_path: Path) -> None:
    """What is finished is taken for this very pretraining alone, whatever its row is called."""

    def folders(**changes: Any) -> set[str]:
        runs: set[str] = set()

        def stop(run: Any) -> Any:
            runs.add(run.run.folder.name)
            return Summary(run.run.folder, 1, 1, 0.0, 0, {}, interrupted=True, data_digest="")

        with pytest.raises(ValueError, match="pretraining was interrupted at step 1; the same command goes on"):
            protocol.evaluate(study(masked, tmp_path, shares=(), **changes), stop)
        return runs

    one = Variant(name="bad", degrade=Degrade(kind="boundary", kernel=3))
    worse = Variant(name="bad", degrade=Degrade(kind="boundary", kernel=5))
    first = folders(variants=(one,))
    assert first == folders(variants=(one,))
    given = study(masked, tmp_path).pretraining
    others = [
        folders(variants=(worse,)),
        folders(variants=(one,), seeds=(1,)),
        folders(variants=(one,), pretraining=given.model_copy(update={"set": {"optimizer.lr": 0.01}})),
        folders(variants=(one,), data=Data(path=masked, filter=Filter(exclude_groups=("person-0",)))),
    ]
    others.append(folders(variants=(one,), pretraining=given.model_copy(update={"set": {"data.shuffle": "blocks"}})))
    assert len(set.union(first, *others)) == 6
    assert folders(variants=(one,), pretraining=given.model_copy(update={"set": {"training.log_every": 1}})) == first


def test_a_nested_setting_changes_one_key_and_leaves_its_section(masked: Path, tmp_path: Path) -> None:
    """`pretraining.set.training.steps=3` on the command line is a section of one key."""
    given = study(masked, tmp_path).pretraining
    nested = given.model_copy(update={"set": {"training.steps": 5, "training": {"steps": 3}}})
    training = run_of(study(masked, tmp_path, pretraining=nested), Trial("uNLC", VARIANTS[1]), 0).training
    assert (training.steps, training.global_batch, training.engine) == (3, 4, "torch")


def test_the_plot_of_masks_that_are_as_good_as_each_other(tmp_path: Path) -> None:
    rows = tuple(Row(name, {"probe: all": Cell.of(0.5)}) for name in ("no pretraining", "one", "other"))
    table = Table("clip", "by masks", "accuracy, %", ("probe: all",), rows)
    details = {"mask_iou": {"one": 1.0, "other": 1.0}, "films": {}}
    subjects = tuple(Subject(row.name, "x") for row in rows)
    results = Results("noisy_masks", "t", subjects, "one", (table,), details=details)
    assert draw(results, tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_refused_before_anything_is_trained(masked: Path, tmp_path: Path) -> None:
    def never(run: Any) -> Any:
        pytest.fail("trained")

    (tmp_path / "without.yaml").write_text(PRETRAINING.replace("mask: true", "mask: false"))
    without = Pretraining(config=tmp_path / "without.yaml")
    with pytest.raises(ValueError, match="pretrains without masks"):
        protocol.evaluate(study(masked, tmp_path, pretraining=without), never)
    bare = write_dataset(tmp_path / "bare", clips=8, frames=16, truth=False)
    with pytest.raises(ValueError, match="true"):
        protocol.evaluate(study(bare, tmp_path), never)
    (tmp_path / "epochs.yaml").write_text(PRETRAINING.replace("steps: 2", "epochs: 1"))
    with pytest.raises(ValueError, match="less data would mean fewer steps"):
        protocol.evaluate(study(masked, tmp_path, pretraining=Pretraining(config=tmp_path / "epochs.yaml")), never)
    (tmp_path / "held.yaml").write_text(PRETRAINING + "validation: {every: 1, hold_out: 0.1}\n")
    with pytest.raises(ValueError, match="set validation to null"):
        protocol.evaluate(study(masked, tmp_path, pretraining=Pretraining(config=tmp_path / "held.yaml")), never)
    with pytest.raises(ValueError, match="no label 'verb'"):
        protocol.evaluate(study(masked, tmp_path, label="verb"), never)


def test_configs_that_contradict_themselves(masked: Path, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="the study itself"):
        Pretraining(config=tmp_path / "x.yaml", set={"data.path": "elsewhere"})
    with pytest.raises(ValidationError, match="the study itself"):
        Pretraining(config=tmp_path / "x.yaml", set={"data": {"clip": {"degrade": {"kind": "box"}}}})
    for names in (["a", "a"], ["no pretraining"], ["0.5 of the films"]):
        with pytest.raises(ValidationError, match="same name"):
            study(masked, tmp_path, variants=tuple(Variant(name=name) for name in names))
    with pytest.raises(ValidationError, match="leave one of them out"):
        study(masked, tmp_path, data=Data(path=masked, filter=Filter(hold_out=0.2)))
    with pytest.raises(ValidationError, match="each once"):
        study(masked, tmp_path, shares=(0.5, 0.5))
    with pytest.raises(ValidationError, match="between 0 and 1"):
        study(masked, tmp_path, shares=(1.0,))
    with pytest.raises(ValidationError, match="is no variant; they are true masks"):
        study(masked, tmp_path, shares_of="nothing")
    assert study(masked, tmp_path).shared.name == "uNLC"
