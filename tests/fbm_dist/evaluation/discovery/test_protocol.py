"""Discovery from end to end: features that spell the classes out, a tiny encoder, the files, and what is refused."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from fbm_dist.evaluation import evaluate
from fbm_dist.evaluation.discovery import findings, protocol
from fbm_dist.evaluation.discovery.config import Discovery
from fbm_dist.evaluation.encoders.features import Features
from fbm_dist.evaluation.labelled.clips import LabelledClips, labelled_clips
from fbm_dist.evaluation.measures import clustering, entropy
from fbm_dist.evaluation.report.text import markdown
from fbm_dist.objectives.objective import Encoder
from fbm_dist.registry import load_encoder
from fbm_dist.registry.folder import weights_digest
from fbm_dist.schema import ClipSpec, Data, Filter, Tracking
from tests.fbm_dist.evaluation.launched import by_two

FILES = {"results.json", "table.md", "figure.png", "clusters.png", "map.png", "map_frames.png", "clusters.csv"}
Make = Callable[..., Discovery]


@pytest.fixture
def discovery(shards: Path, encoder: Path, tmp_path: Path) -> Make:
    """A discovery that takes seconds; keywords change it."""

    def make(**changes: Any) -> Discovery:
        settings: dict[str, Any] = {
            "encoder": str(encoder),
            "data": Data(path=shards),
            "label": "object",
            "split": "all",
            "repeats": 3,
            "starts": 2,
            "device": "cpu",
            "output": tmp_path / "out",
            "tracking": Tracking(mlflow=False),
        }
        return Discovery(**(settings | changes))

    return make


def objects(shards: Path) -> LabelledClips:
    """The 21 clips that have the label object."""
    return labelled_clips([Data(path=shards, clip=ClipSpec(mask=False))], "object")


def spelt(monkeypatch: pytest.MonkeyPatch, tell: Callable[[Encoder, LabelledClips], dict[str, np.ndarray]]) -> None:
    """In place of an encoder's: features made from the labelled clips, in another order than the study's; no frame is decoded."""

    def features(encoder: Encoder, data: Data, **_: object) -> Features:
        clips = labelled_clips([data], "object")
        turned = clips.take(np.arange(len(clips))[::-1])
        return Features(tuple(turned.key.tolist()), tell(encoder, turned))

    monkeypatch.setattr("fbm_dist.evaluation.encoders.features.extract", features)
    monkeypatch.setattr(findings, "middle_frames", lambda data, keys: {})


def apart(_: Encoder, clips: LabelledClips) -> dict[str, np.ndarray]:
    """`told`: the classes far apart, with a little noise; `noise`: nothing but noise."""
    random = np.random.default_rng(0)
    told = 10 * np.eye(len(clips.classes))[clips.target] + random.normal(0, 0.1, (len(clips), len(clips.classes)))
    return {"told": told.astype(np.float32), "noise": random.normal(size=(len(clips), 5)).astype(np.float32)}


def test_features_that_tell_the_classes_leave_no_doubt(discovery: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    spelt(monkeypatch, apart)
    results = evaluate(discovery(seeds=(0, 1)))
    assert [table.name for table in results.tables] == ["kmeans", "spectral", "kmeans_nmi", "spectral_nmi"]
    for name in ("kmeans", "spectral"):
        table, information = results.table(name), results.table(f"{name}_nmi")
        assert table.columns == ("told", "noise", "all")
        chance = table.rows[0]
        assert chance.kind == "chance"
        for row in table.rows[1:]:
            assert row.cells["told"].value.mean == pytest.approx(0, abs=1e-9)
            assert row.cells["told"].spread == pytest.approx(0, abs=1e-9)
            assert row.cells["all"].value.mean == pytest.approx(0, abs=1e-9)
            assert 0.8 < row.cells["noise"].value.mean <= np.log2(3)
        assert 1.0 < chance.cells["told"].value.mean < results.details["class_entropy_bits"] <= np.log2(3)
        assert information.row(results.main).cells["told"].value.mean == pytest.approx(1)
        assert information.row(results.main).cells["noise"].value.mean < 0.5
    assert any("(the best of its groups) leaves 2^0.00 = 1.00 classes in doubt" in note for note in results.notes)


def test_groups_are_scaled_before_they_are_joined(discovery: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loud noise hides a faint group in `all`, unless the columns are standardised."""

    def faint(encoder: Encoder, clips: LabelledClips) -> dict[str, np.ndarray]:
        groups = apart(encoder, clips)
        return {"told": groups["told"] / 1000, "noise": groups["noise"][:, :1] * 10}

    spelt(monkeypatch, faint)
    settings = {"algorithms": ("k-means",), "compare_with": ()}
    hidden = evaluate(discovery(**settings)).table("kmeans").rows[1].cells["all"].value.mean
    seen = evaluate(discovery(**settings, scale="standard")).table("kmeans").rows[1].cells["all"].value.mean
    assert hidden > 0.5
    assert seen < hidden - 0.3


def test_an_encoder_is_measured_and_its_files_written(
    discovery: Make, shards: Path, registered: str, tmp_path: Path
) -> None:
    tracking = Tracking(mlflow=True, uri=registered, experiment="discoveries")
    results = evaluate(discovery(encoder="models:/fbm-encoder/1", tracking=tracking, paper="five_contexts"))
    table = results.table("kmeans")
    assert table.columns == ("foreground", "background", "motion", "all", "fc6")
    for row in table.rows:
        for cell in row.cells.values():
            assert 0 <= cell.value.mean <= 2.32
            assert cell.spread is not None
    reported = {row.name: row.cells["fc6"].value.mean for row in table.rows if row.kind == "paper"}
    assert reported["paper: Quadruplet, AlexNet"] == 1.94
    assert "paper" not in {row.kind for row in results.table("kmeans_nmi").rows}
    text = markdown(results)
    assert "1.94 ± 0.01†" in text
    assert "in 3 clusters, as many as classes" in text

    folder = tmp_path / "out"
    assert {path.name for path in folder.iterdir()} == FILES
    rows = list(csv.DictReader((folder / "clusters.csv").open()))
    clips = objects(shards)
    assert [row["key"] for row in rows] == clips.key.tolist()
    assert {row["class"] for row in rows} == {"plain", "rough", "striped"}
    assert {row["kmeans.motion"] for row in rows} <= {"0", "1", "2"}

    client = MlflowClient(registered)
    run = client.search_runs([client.get_experiment_by_name("discoveries").experiment_id])[0]
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == FILES
    found = table.row(results.main).cells["motion"].value.mean
    assert run.data.metrics["motion.kmeans"] == found
    tags = client.get_model_version("fbm-encoder", "1").tags
    assert float(tags["discovery.motion.kmeans"]) == pytest.approx(found, abs=1e-3)


def test_every_seed_is_another_random_encoder_and_a_pretrained_one_stays(
    discovery: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features drawn from the weights: two seeds give the mean of each alone."""

    def of_weights(encoder: Encoder, clips: LabelledClips) -> dict[str, np.ndarray]:
        random = np.random.default_rng(int(weights_digest(encoder)[:8], 16))
        return {"drawn": random.normal(size=(len(clips), 2)).astype(np.float32)}

    spelt(monkeypatch, of_weights)
    one, other, both = (
        evaluate(discovery(seeds=seeds, algorithms=("k-means",))).table("kmeans") for seeds in ((0,), (1,), (0, 1))
    )
    random, pretrained = "random initialisation", discovery().encoder
    first, second, mean = (table.row(random).cells["drawn"].value.mean for table in (one, other, both))
    assert first != second
    assert mean == pytest.approx((first + second) / 2)
    assert one.row(pretrained) == both.row(pretrained)


def test_which_clips_are_clustered(discovery: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test split where train and test are named; what the filter says; or all."""
    spelt(monkeypatch, apart)

    def clips(**changes: Any) -> int:
        study = protocol._prepare(discovery(**changes), protocol.join("cpu"))
        assert study.part is None or set(study.clips.split.tolist()) == {study.part}
        assert study.data.filter.split == study.part
        return len(study.clips)

    everything, test, train = clips(), clips(split="auto"), clips(split="train")
    assert everything > train > test > 0
    path = discovery().data.path
    assert clips(split="auto", data=Data(path=path, filter=Filter(split="val"))) < everything
    results = evaluate(discovery(split="train", compare_with=(), repeats=1))
    assert any(note.startswith(f"The clips of the split 'train': {train} of") for note in results.notes)
    assert results.table("kmeans").footer["told"] == str(train)
    assert results.table("kmeans").rows[1].cells["told"].spread is None  # one clustering has no deviation


def test_spectral_clustering_of_a_part(
    discovery: Make, monkeypatch: pytest.MonkeyPatch, shards: Path, tmp_path: Path
) -> None:
    spelt(monkeypatch, apart)
    results = evaluate(discovery(spectral_clips=12, compare_with=()))
    assert results.table("spectral").footer["told"] == "12"
    assert results.table("kmeans").footer["told"] == "21"
    assert results.table("spectral").rows[1].cells["told"].value.mean == pytest.approx(0, abs=1e-9)
    assert any(
        "12 of the clips, evenly spread" in note and "The fewer clips, the lower" in note for note in results.notes
    )
    chances = {name: results.table(name).rows[0].cells["told"].value.mean for name in ("kmeans", "spectral")}
    target = objects(shards).target[clustering.spread(21, 12)]
    by_hand = [entropy.conditional_entropy(target, np.random.default_rng(i).integers(3, size=12)) for i in range(3)]
    assert chances["spectral"] == pytest.approx(np.mean(by_hand)), "of the clips that are clustered"
    assert chances["kmeans"] != chances["spectral"]
    assert any(f"random assignment 2^{chances['spectral']:.2f}" in note for note in results.notes)
    rows = list(csv.DictReader((tmp_path / "out" / "clusters.csv").open()))
    assert sum(row["spectral.told"] != "" for row in rows) == 12


def test_a_class_without_clips_is_told(discovery: Make, monkeypatch: pytest.MonkeyPatch, shards: Path) -> None:
    clips = objects(shards)
    gone = shards.parent / "no-striped.txt"
    gone.write_text("\n".join(clips.key[clips.target == clips.classes.index("striped")].tolist()))
    spelt(monkeypatch, apart)
    results = evaluate(discovery(data=Data(path=shards, filter=Filter(exclude_keys=gone)), compare_with=()))
    assert results.details["clusters"] == 2
    assert any("Without a clip here: striped" in note for note in results.notes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"label": "verb"}, "no label 'verb'"),
        ({"label": None}, r"several labels \(motion, object\)"),
        ({"clusters": 25}, r"21 clips among the clips cannot be 25 clusters"),
        ({"split": "test", "clusters": 9}, r"clips in the split 'test' cannot be 9 clusters"),
        ({"encoder": "nowhere"}, "no encoder at nowhere"),
    ],
)
def test_refused_before_anything_is_computed(
    discovery: Make, changes: dict[str, object], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fbm_dist.evaluation.encoders.features.extract", lambda *_, **__: pytest.fail("computed"))
    with pytest.raises(ValueError, match=said) as caught:
        evaluate(discovery(**changes))
    assert "\n" not in str(caught.value)


def test_one_class_only_is_refused(discovery: Make, shards: Path) -> None:
    clips = objects(shards)
    gone = shards.parent / "one-class.txt"
    gone.write_text("\n".join(clips.key[clips.target > 0].tolist()))
    with pytest.raises(ValueError, match=r"one value only \('plain'\): nothing to discover"):
        evaluate(discovery(data=Data(path=shards, filter=Filter(exclude_keys=gone))))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"algorithms": ("k-means", "k-means")}, "each once"),
        ({"sigma": 0.0}, "sigma is 0.0"),
        ({"split": "train", "data": Data(path="x", filter=Filter(split="test"))}, "leave one of them out"),
    ],
)
def test_configs_that_cannot_be_meant(discovery: Make, changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        discovery(**changes)


def test_features_that_cannot_be_clustered(discovery: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    main = re.escape(discovery().encoder)
    spelt(monkeypatch, lambda _, clips: {"dead": np.zeros((len(clips), 3), np.float32)})
    with pytest.raises(ValueError, match=f"encoder {main}: its dead features are the same for every clip"):
        evaluate(discovery())
    spelt(monkeypatch, apart)
    with pytest.raises(ValueError, match=f"encoder {main}, told features: sigma is too small"):
        evaluate(discovery(sigma=1e-4))
    with pytest.raises(ValueError, match=r"figure_group=colour: the encoder .* has told, noise \(and all\)"):
        evaluate(discovery(figure_group="colour"))


def test_a_dead_group_of_another_encoder_costs_its_cells_alone(
    discovery: Make, monkeypatch: pytest.MonkeyPatch, encoder: Path, tmp_path: Path
) -> None:
    """One of two random initialisations has a constant group, and another whose clips are half alike."""
    kept = weights_digest(load_encoder(encoder))
    dead: list[str] = []

    def some(given: Encoder, clips: LabelledClips) -> dict[str, np.ndarray]:
        groups, digest = apart(given, clips), weights_digest(given)
        alike = groups["noise"].copy()
        if digest != kept and not dead:
            dead.append(digest)
            groups["told"][:] = 1
            alike[3:] = 0
        return groups | {"alike": alike}

    spelt(monkeypatch, some)
    results = evaluate(discovery(seeds=(0, 1)))
    cells = {name: results.table(name).row("random initialisation").cells for name in ("kmeans", "spectral")}
    assert set(cells["kmeans"]) == {"noise", "alike", "all"}
    assert set(cells["spectral"]) == {"noise", "all"}
    assert set(results.table("spectral").row(results.main).cells) == {"told", "noise", "alike", "all"}
    left_out = [note for note in results.notes if note.startswith("Left out")]
    assert left_out[0] == "Left out: encoder random initialisation: its told features are the same for every clip."
    assert left_out[1].startswith(
        "Left out: encoder random initialisation, alike features: half of the feature vectors"
    )
    assert len(left_out) == 2


def test_seeds_and_repeats_that_leave_what_scikit_learn_takes(discovery: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    spelt(monkeypatch, apart)
    results = evaluate(discovery(seeds=(2**31 - 1,), algorithms=("k-means",), compare_with=()))
    assert results.table("kmeans").row(results.main).cells["told"].value.mean == pytest.approx(0, abs=1e-9)


def test_what_is_said_of_the_starts(discovery: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    spelt(monkeypatch, apart)
    best = "Each is the best of 2 k-means++ starts"
    assert any(f"{best}. " in f"{note} " for note in evaluate(discovery(compare_with=())).notes)
    monkeypatch.setattr(findings, "MINI_BATCH", 20)
    (told,) = [note for note in evaluate(discovery(compare_with=(), spectral_clips=12)).notes if "starts" in note]
    assert f"{best} (below 20 clips). From 20 clips on, k-means learns its centres from batches" in told
    (told,) = [note for note in evaluate(discovery(compare_with=(), algorithms=("k-means",))).notes if "starts" in note]
    assert best not in told


@pytest.mark.distributed
@pytest.mark.slow  # a launcher, and torch imported in each of two processes
def test_two_processes_find_what_one_finds(discovery: Make, shards: Path, encoder: Path, tmp_path: Path) -> None:
    results = evaluate(discovery())
    given = [
        f"encoder={encoder}",
        f"data.path={shards}",
        "label=object",
        "split=all",
        "seeds=[0]",
        "repeats=3",
        "starts=2",
    ]
    found = by_two("discovery", given, tmp_path / "two")
    for table, other in zip(results.tables, found["tables"], strict=True):
        for row, told in zip(table.rows, other["rows"], strict=True):
            assert {c: cell.value.mean for c, cell in row.cells.items()} == pytest.approx(
                {c: cell["value"]["mean"] for c, cell in told["cells"].items()}
            )
