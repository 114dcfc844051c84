"""The whole protocol on a tiny data set: table, files, MLflow, resume, and what it refuses before it computes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fbm_dist.data.index.labels import choose_label
from fbm_dist.evaluation import evaluate
from fbm_dist.evaluation.action_recognition.config import ActionRecognition
from fbm_dist.evaluation.action_recognition.fine_tuning import first_above
from fbm_dist.evaluation.encoders.candidates import candidates
from fbm_dist.evaluation.encoders.features import extract
from fbm_dist.evaluation.encoders.origin import seen_in_pretraining
from fbm_dist.evaluation.labelled.clips import labelled_clips
from fbm_dist.objectives.classifier.objective import Classifier
from fbm_dist.registry.client import connect
from fbm_dist.schema import Data, Filter, LinearProbe, Tracking, Training
from fbm_dist.training.distributed import start
from tests.datasets import write_dataset
from tests.fbm_dist.evaluation.launched import by_two

Make = Callable[..., ActionRecognition]


def world() -> object:
    return start(Training(steps=1, engine="torch", device="cpu"))


@pytest.mark.slow  # two encoders read, probed and fine-tuned
def test_end_to_end_from_the_registry(
    evaluation: Make, registered: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = "models:/fbm-encoder@champion"
    wanted = evaluation(encoder=uri, tracking=Tracking(uri=registered, experiment="evaluations"))
    results = evaluate(wanted)

    table = results.table("clip")
    assert [row.name for row in table.rows if row.kind == "measured"] == ["random initialisation", "fbm-encoder v1"]
    assert table.columns == ("probe: foreground", "probe: background", "probe: motion", "probe: all", "fine-tuned")
    assert set(table.footer.values()) == {"8 (1)"}, "4 films that show both classes, each counted for both"
    assert [row.cells["fine-tuned"].value.mean for row in table.rows if row.kind == "chance"] == [0.5]
    pretrained = results.subjects[1]
    assert results.main == pretrained.name
    assert pretrained.model == "models:/fbm-encoder/1"
    assert pretrained.seen == "4 of 4 tested films were seen in pretraining"
    for cell in table.row(pretrained.name).cells.values():
        assert 0 <= cell.value.mean <= 1
        assert cell.difference is not None
    testing = results.details["test_accuracy"]["fine-tuned"][pretrained.name][0]
    assert [epoch for epoch, _ in testing] == [0.25, 0.5, 1.0], (
        "the first step, and every second of 4 steps of 4 of 16 clips"
    )

    printed = capsys.readouterr().out
    for told in ("paper: FBM†", "62.5†", "its own data", "one group", "fbm-encoder v1", "given test groups"):
        assert told in printed
    output = wanted.output
    assert json.loads((output / "results.json").read_text())["subjects"][1]["sha256"] == pretrained.sha256
    assert "| fbm-encoder v1 |" in (output / "table.md").read_text()
    assert (output / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert not list(output.rglob("checkpoints")), "what nobody reads again is not kept"

    client = connect(registered)
    experiment = client.get_experiment_by_name("evaluations")
    run = client.search_runs([experiment.experiment_id])[0]
    assert run.data.tags["model"] == "models:/fbm-encoder/1"
    found = table.row(pretrained.name).cells
    assert run.data.metrics["fine_tuned.clip"] == found["fine-tuned"].value.mean
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"results.json", "table.md", "figure.png"}
    tags = client.get_model_version("fbm-encoder", "1").tags
    assert float(tags["action_recognition.probe.motion.clip"]) == pytest.approx(
        found["probe: motion"].value.mean, abs=1e-3
    )
    assert tags["action_recognition.run"] == run.info.run_id

    with (
        monkeypatch.context() as patched
    ):  # the same command again trains nothing and finds the same; another seed trains
        patched.setattr(
            "fbm_dist.evaluation.action_recognition.fine_tuning.train", lambda *_, **__: pytest.fail("trained again")
        )
        only = {"linear_probe": None, "tracking": Tracking(mlflow=False, uri=registered)}
        again = evaluate(wanted.model_copy(update=only))
        for before, after in zip(table.rows, again.table("clip").rows, strict=True):
            assert after.cells["fine-tuned"] == before.cells["fine-tuned"]
        with pytest.raises(pytest.fail.Exception, match="trained again"):
            evaluate(wanted.model_copy(update={**only, "seeds": (1,)}))


def test_the_linear_layer_alone_learns_on_a_frozen_encoder(evaluation: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained by the trainer as fine-tuning is, to another answer; the encoder stays as it was pretrained."""
    from fbm_dist.evaluation.action_recognition import fine_tuning
    from fbm_dist.registry.folder import weights_digest

    digests: dict[bool, set[str]] = {}

    def watched(run: object, objective: Classifier, **settings: Any) -> object:
        before = weights_digest(objective.encoder())
        summary = train(run, objective, **settings)  # type: ignore[arg-type]
        digests[objective.config.frozen] = {before, weights_digest(objective.encoder())}
        return summary

    train = fine_tuning.train
    monkeypatch.setattr(fine_tuning, "train", watched)
    given = evaluation().fine_tuning
    assert given is not None
    both = given.model_copy(update={"modes": ("fine-tuned", "frozen"), "looks": 0})
    results = evaluate(evaluation(linear_probe=None, compare_with=(), fine_tuning=both))
    assert results.table("clip").columns == ("fine-tuned", "frozen")
    assert {frozen: len(found) for frozen, found in digests.items()} == {False: 2, True: 1}
    curves = [results.details["training_accuracy"][mode] for mode in ("fine-tuned", "frozen")]
    assert all(len(by_name[results.main][0]) == 4 for by_name in curves), "a point for each of 4 steps"


def test_random_is_the_same_architecture_and_a_seed_apart(evaluation: Make) -> None:
    random, pretrained = candidates(evaluation())
    assert random.random
    assert random.family == pretrained.family
    from fbm_dist.registry.folder import weights_digest

    digests = [weights_digest(random.encoder(seed)) for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]
    assert weights_digest(pretrained.encoder(0)) == weights_digest(pretrained.encoder(1))


def test_data_are_read_as_the_encoder_needs_them(evaluation: Make) -> None:
    _, pretrained = candidates(evaluation())
    clip = pretrained.data(evaluation().data, "motion").clip
    assert (clip.frames, clip.size, clip.window, clip.mask, clip.mirror, clip.reverse) == (
        16,
        64,
        "centre",
        False,
        0,
        0,
    )


def test_features_are_those_of_each_clip(evaluation: Make) -> None:
    """Batches of another size give every key the same features: eval mode, no mixing of rows."""
    wanted = evaluation()
    _, pretrained = candidates(wanted)
    data = pretrained.data(wanted.data, "motion")
    one, other = (
        extract(pretrained.encoder(0), data, batch=batch, world=world(), name="x")  # type: ignore[arg-type]
        for batch in (5, 16)
    )
    clips = labelled_clips([data], "motion")
    assert sorted(one.key) == sorted(clips.key.tolist())
    for group, value in one.of(clips.key.tolist()).items():
        np.testing.assert_allclose(value, other.of(clips.key.tolist())[group], atol=1e-4)


def test_nan_features_are_refused_by_group_and_clip(evaluation: Make) -> None:
    wanted = evaluation()
    _, pretrained = candidates(wanted)
    encoder = pretrained.encoder(0)
    with torch.no_grad():
        next(encoder.parameters()).fill_(float("nan"))
    data = pretrained.data(wanted.data, "motion")
    with pytest.raises(ValueError, match=r"encoder v9: its foreground features are NaN.*24 of 24"):
        extract(encoder, data, batch=16, world=world(), name="v9")  # type: ignore[arg-type]


def test_label_rules(tmp_path: Path, shards: Path) -> None:
    assert choose_label(Data(path=shards), "object") == "object"
    with pytest.raises(ValueError, match=r"several labels \(motion, object\)"):
        choose_label(Data(path=shards), None)
    with pytest.raises(ValueError, match=r"no label 'action'.*motion, object"):
        choose_label(Data(path=shards), "action")
    only = write_dataset(tmp_path / "only", clips=4, labels=["motion"], masks=False, truth=False)
    assert choose_label(Data(path=only), None) == "motion"
    none = write_dataset(tmp_path / "none", clips=4, labels=[], masks=False, truth=False)
    with pytest.raises(ValueError, match="no clip has a label"):
        choose_label(Data(path=none), None)


def test_clips_without_the_label_are_left_out(shards: Path) -> None:
    clips = labelled_clips(
        [Data(path=shards, clip=Data(path=shards).clip.model_copy(update={"mask": False}))], "object"
    )
    assert 0 < len(clips) < 24
    assert set(np.bincount(clips.target) > 0) == {True}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"label": "verb"}, "no label 'verb'"),
        ({"test_groups": ()}, "in both train and test"),
        ({"test_groups": ("person-9",)}, "no such group"),
        ({"encoder": "nowhere"}, "no encoder at nowhere"),
    ],
)
def test_refused_before_anything_is_computed(
    evaluation: Make, changes: dict[str, object], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fbm_dist.evaluation.encoders.features.extract", lambda *_, **__: pytest.fail("computed"))
    with pytest.raises(ValueError, match=said) as caught:
        evaluate(evaluation(**changes))
    assert "\n" not in str(caught.value)


def test_short_clips_and_missing_folder(evaluation: Make, tmp_path: Path) -> None:
    short = write_dataset(tmp_path / "short", clips=4, frames=12, masks=False, truth=False)
    with pytest.raises(ValueError, match="at least 16 stored frames"):
        evaluate(evaluation(data=Data(path=short)))
    with pytest.raises(ValueError, match="no such folder"):
        evaluate(evaluation(data=Data(path=tmp_path / "nowhere")))


def test_what_is_known_about_pretraining(evaluation: Make, shards: Path, encoder: Path, tmp_path: Path) -> None:
    wanted = evaluation(fine_tuning=None)
    data = Data(path=shards, clip=Data(path=shards).clip.model_copy(update={"mask": False, "size": 64}))
    tested = labelled_clips([data], "motion")
    tested = tested.take(np.flatnonzero(tested.group == "person-2"))

    def told(info: dict[str, object]) -> str:
        copy = tmp_path / f"encoder-{len(list(tmp_path.iterdir()))}"
        shutil.copytree(encoder, copy)
        config = json.loads((copy / "config.json").read_text())
        (copy / "config.json").write_text(json.dumps(config | {"info": info}))
        found = candidates(wanted.model_copy(update={"encoder": str(copy)}))
        return seen_in_pretraining(found[1], tested, wanted.data)

    apart = data.model_copy(update={"filter": Filter(exclude_groups=("person-2",))})
    assert told({"data": data.model_dump(mode="json")}).startswith("4 of 4")
    assert told({"data": apart.model_dump(mode="json")}).startswith("0 of 4")
    elsewhere = data.model_dump(mode="json") | {"path": "gone"}
    assert "another data set" in told({"data": elsewhere, "data_digest": "0" * 16 + ".a.b"})
    assert "does not say" in told({})
    earlier = told({"data": apart.model_dump(mode="json"), "init_from": "models:/other/3"})
    assert earlier.endswith("; its first weights are of models:/other/3, whose films are not counted")
    assert ", with their labels (motion)" in told({"data": data.model_dump(mode="json"), "labels": "motion"})
    assert seen_in_pretraining(candidates(wanted)[0], tested, wanted.data) == "no pretraining"


def test_a_probe_can_learn_what_the_features_hold(evaluation: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features that spell the label out: the protocol must find 100 %, through splits, keys and orders."""
    from fbm_dist.evaluation.encoders.features import Features

    wanted = evaluation(fine_tuning=None, linear_probe=LinearProbe(), seeds=(0, 1))

    def spell(encoder: object, data: Data, **_: object) -> Features:
        clips = labelled_clips([data], "motion")
        turned = clips.take(np.arange(len(clips))[::-1])  # another order than the study's
        return Features(tuple(turned.key.tolist()), {"told": np.eye(2, dtype=np.float32)[turned.target]})

    monkeypatch.setattr("fbm_dist.evaluation.encoders.features.extract", spell)
    results = evaluate(wanted)
    table = results.table("clip")
    assert table.columns == ("probe: told",)
    assert all(row.cells["probe: told"].value.mean == 1 for row in table.rows if row.kind == "measured")


def test_epochs_to_an_accuracy_are_not_a_few_lucky_batches() -> None:
    """Batches of 16 clips of which 80 % are right on average come to 90 % often; an epoch of 256 does not."""
    lucky = np.random.default_rng(0).binomial(16, 0.8, size=400) / 16
    curve = tuple((step / 16, float(value)) for step, value in enumerate(lucky, 1))
    assert first_above(curve, 0.9, window=1) is not None
    assert first_above(curve, 0.9, window=16) is None
    rising = tuple(zip(range(1, 9), [0.2, 1.0, 0.3, 0.8, 0.95, 1.0, 1.0, 0.5], strict=True))
    assert first_above(rising, 0.9, window=3) == 6, "0.8, 0.95 and 1.0 are 0.917 on average"
    assert first_above(rising[:2], 0.9, window=3) is None


@pytest.mark.distributed
@pytest.mark.slow  # a launcher, and torch imported in each of two processes
def test_two_processes_find_what_one_finds(evaluation: Make, shards: Path, encoder: Path, tmp_path: Path) -> None:
    results = evaluate(evaluation(fine_tuning=None))
    given = [f"encoder={encoder}", f"data.path={shards}", "test_groups=[person-2]", "fine_tuning=null"]
    found = by_two("demo", given, tmp_path / "two")
    table = results.table("clip")
    told = next(other for other in found["tables"] if other["name"] == "clip")
    for row, other in zip(table.rows, told["rows"], strict=True):
        for column, cell in row.cells.items():
            assert other["cells"][column]["value"]["mean"] == cell.value.mean
