"""A collection is embedded whole, by any number of processes, killed or not; another encoder, data set or setting is refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_tools.dataset import read_manifest
from data_tools.places import place
from fbm_dist.evaluation import evaluate
from fbm_dist.evaluation.embedding import features, parts, protocol, read
from fbm_dist.evaluation.embedding.config import Clusters, Embedding
from fbm_dist.evaluation.embedding.reader import open_embeddings
from fbm_dist.evaluation.encoders.candidates import found
from fbm_dist.evaluation.encoders.features import extract
from fbm_dist.evaluation.report.results import Results
from fbm_dist.registry.client import connect
from fbm_dist.schema import Data, Filter, Tracking, Training
from fbm_dist.training.distributed import start
from tests.datasets import destroy, write_dataset
from tests.object_store import new_bucket, s3_server

ROOT = Path(__file__).parents[4]
FILES = ["results.json", "table.md", "clusters.parquet", "neighbours.parquet", "map.png", "page.html"]
Make = Callable[..., Embedding]
Embedded = tuple[Embedding, Results]

# Kills itself, as the kernel would, in the middle of the file that is named first.
KILLED = """
import os, runpy, signal, sys
from contextlib import contextmanager
from fbm_dist.evaluation.embedding import parts
name, sys.argv = sys.argv[1], sys.argv[2:]
whole = parts.atomic
@contextmanager
def cut(path):
    with whole(path) as file:
        yield file
        if path.name == name:
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
parts.atomic = cut
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def command(evaluation: Embedding, output: Path) -> list[str]:
    """The same evaluation from a shell, into another folder."""
    given = {
        "encoder": evaluation.encoder,
        "data.path": evaluation.data.path,
        "data.decode": "pyav",
        "data.workers": 1,
        "batch": evaluation.batch,
        "part_clips": evaluation.part_clips,
        "clusters.number": evaluation.clusters.number,
        "page": json.dumps(evaluation.page.model_dump()),
        "map": "null",
        "device": "cpu",
        "output": output,
        "tracking.mlflow": "false",
    }
    config = ROOT / "configs" / "evaluate" / "embed.yaml"
    return [str(ROOT / "launch" / "evaluate.py"), str(config), *(f"{key}={value}" for key, value in given.items())]


def table(output: Path) -> pa.Table:
    return read(output).to_table()


def test_every_clip_once_with_the_features_of_the_encoder(embedded: Embedded) -> None:
    wanted, _ = embedded
    files = sorted((wanted.output / "embeddings").iterdir())
    assert [file.name for file in files] == [f"part-{number:05d}.parquet" for number in range(5)]
    assert [pq.read_metadata(file).num_rows for file in files] == [5, 5, 5, 5, 4]
    there, manifest = table(wanted.output), read_manifest(wanted.data.path)
    assert there["key"].to_pylist() == manifest["key"].to_pylist(), "the reading order"
    for column in ("film", "source", "shot", "group", "split", "labels", "shard"):
        assert there[column].to_pylist() == manifest[column].to_pylist(), column
    spans = list(zip(there["start"].to_pylist(), there["stop"].to_pylist(), strict=True))
    assert spans == [tuple(span) for span in manifest["span"].to_pylist()]
    assert set(there["fps"].to_pylist()) == {25.0}
    # the encoder sees the middle 16 of 18 frames
    assert (np.array(there["seen_start"]) == np.array(there["start"]) + 1).all()
    assert (np.array(there["seen_stop"]) == np.array(there["stop"]) - 1).all()

    world = start(Training(steps=1, engine="torch", device="cpu"))
    (candidate,) = found([wanted.encoder], None, None)
    straight = extract(candidate.encoder(0), candidate.data(wanted.data), batch=7, world=world, name="x")
    expected = straight.of(there["key"].to_pylist())
    assert set(expected) == {"foreground", "background", "motion"}
    for group, value in expected.items():
        assert there[group].type == pa.list_(pa.float32(), value.shape[1])
        np.testing.assert_allclose(features(there, group), value, atol=1e-4)
    together = np.concatenate([expected[name] for name in open_embeddings(wanted.output).groups], axis=1)
    np.testing.assert_allclose(features(there), together, atol=1e-4)


def test_files_say_what_made_them(embedded: Embedded) -> None:
    wanted, results = embedded
    about = open_embeddings(wanted.output).about
    assert about["encoder"] == wanted.encoder
    assert about["sha256"] == results.subjects[0].sha256
    assert about["decoder"] == "pyav"
    assert len(about["digest"].split(".")) == 3
    assert json.loads(read(wanted.output).schema.metadata[b"fbm_dist.embedding"]) == about


def test_clusters_and_results(embedded: Embedded) -> None:
    wanted, results = embedded
    assigned = pq.read_table(wanted.output / "clusters.parquet")
    assert assigned["key"].to_pylist() == table(wanted.output)["key"].to_pylist()
    told = {entry["cluster"]: entry["clips"] for entry in results.details["clusters"]}
    assert np.bincount(assigned["cluster"].to_numpy(), minlength=3).tolist() == [told[number] for number in range(3)]
    row = results.table("clusters").row(results.main)
    assert (row.cells["clips"].value.mean, row.cells["films"].value.mean) == (24, 12)
    assert results.facts["parts_made"] == 5
    assert all((wanted.output / name).is_file() for name in FILES)


def test_neighbours_are_of_other_films_and_the_nearest(embedded: Embedded) -> None:
    wanted, _ = embedded
    there = table(wanted.output)
    values = features(there, "all").astype(np.float64)
    values = (values - values.mean(axis=0)) / np.maximum(values.std(axis=0), 1e-12)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    keys, films = there["key"].to_pylist(), np.array(there["film"].to_pylist())
    near = pq.read_table(wanted.output / "neighbours.parquet").to_pylist()
    assert len({row["query"] for row in near}) == 3
    for query in {row["query"] for row in near}:
        rows = sorted((row for row in near if row["query"] == query), key=lambda row: row["rank"])
        assert all(row["film"] != row["query_film"] for row in rows)
        cosine = values @ values[keys.index(query)]
        cosine[films == rows[0]["query_film"]] = -2
        best = np.argsort(-cosine)[:4]
        assert [row["key"] for row in rows] == [keys[i] for i in best]
        np.testing.assert_allclose([row["similarity"] for row in rows], cosine[best], atol=1e-3)


@pytest.mark.slow  # torch imported in another process
def test_a_killed_run_goes_on_with_what_is_missing(embedded: Embedded, embedding: Make, tmp_path: Path) -> None:
    whole, _ = embedded
    output = tmp_path / "killed"
    ran = subprocess.run(
        [sys.executable, "-c", KILLED, "part-00002.parquet", *command(whole, output)],
        cwd=ROOT,
        check=False,
        capture_output=True,
        timeout=280,
    )
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    folder = output / "embeddings"
    finished = sorted(path.name for path in folder.glob("part-*.parquet"))
    assert finished == ["part-00000.parquet", "part-00001.parquet"]
    assert len(list(folder.iterdir())) == 3, "the third one was being written"
    with pytest.raises(ValueError, match=r"3 of 5 parts are missing \(part-00002.parquet is the first\)"):
        read(output)
    before = {name: (folder / name).stat().st_ino for name in finished}

    results = evaluate(embedding(output=output))
    assert results.facts["parts_made"] == 3
    assert {name: (folder / name).stat().st_ino for name in finished} == before
    assert len(list(folder.iterdir())) == 5, "nothing unfinished is left"
    assert table(output).equals(table(whole.output))


def test_a_second_run_computes_no_feature(embedded: Embedded, embedding: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, first = embedded
    output = embedding().output
    shutil.copytree(wanted.output, output)
    monkeypatch.setattr(parts, "read_placed", lambda *_: pytest.fail("read again"))
    again = evaluate(embedding(clusters=Clusters(number=4), batch=3))  # what comes after may change
    assert again.facts["parts_made"] == 0
    assert again.table("clusters").row(again.main).cells["clusters"].value.mean == 4
    assert evaluate(embedding()).details == first.details


@pytest.mark.distributed
@pytest.mark.slow  # a launcher, and torch imported in each of two processes
def test_two_processes_make_what_one_makes(embedded: Embedded, tmp_path: Path) -> None:
    wanted, results = embedded
    launcher = [str(Path(sys.executable).with_name("torchrun")), "--standalone", "--nproc-per-node", "2"]
    ran = subprocess.run(
        [*launcher, *command(wanted, tmp_path / "two")],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        timeout=280,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert ran.returncode == 0, ran.stderr
    told = json.loads((tmp_path / "two" / "results.json").read_text())
    assert told["facts"]["processes"] == 2
    assert told["facts"]["parts_made"] == 5
    one, two = table(wanted.output), table(tmp_path / "two")
    assert one.drop_columns(["foreground", "background", "motion"]).equals(
        two.drop_columns(["foreground", "background", "motion"])
    )
    for group in ("foreground", "background", "motion"):
        np.testing.assert_allclose(features(one, group), features(two, group), atol=1e-4)
    assert [c["clips"] for c in told["details"]["clusters"]] == [c["clips"] for c in results.details["clusters"]]


def test_each_process_takes_neighbours() -> None:
    shares = [list(parts.share(range(3, 14), rank, 4)) for rank in range(4)]
    assert [part for share in shares for part in share] == list(range(3, 14))
    assert {len(share) for share in shares} == {2, 3}
    assert [list(parts.share([5], rank, 3)) for rank in range(3)] == [[], [], [5]]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"encoder": "random"}, r"another encoder \(.*now random"),
        ({"part_clips": 6}, r"another part_clips \(5, now 6\)"),
        ({"precision": "float16"}, r"another precision \(float32, now float16\)"),
        ({"filter": Filter(exclude_groups=("person-1",))}, r"another data\.filter;"),
    ],
)
def test_files_of_something_else_are_refused(
    embedded: Embedded, embedding: Make, changes: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, _ = embedded
    monkeypatch.setattr(protocol, "write_parts", lambda *_: pytest.fail("computed"))
    if "filter" in changes:
        changes = {"data": wanted.data.model_copy(update=changes)}
    with pytest.raises(ValueError, match=said) as caught:
        evaluate(embedding(output=wanted.output, **changes))
    assert "\n" not in str(caught.value)


def test_another_data_set_is_refused_and_the_pin_is_told(embedded: Embedded, embedding: Make, tmp_path: Path) -> None:
    wanted, _ = embedded
    grown = tmp_path / "grown"
    shutil.copytree(wanted.data.path, grown)
    write_dataset(grown, clips=5, frames=18, truth=False, masks=False, seed=1)
    data = wanted.data.model_copy(update={"path": grown})
    with pytest.raises(ValueError, match=r"another data set; data\.snapshot=1 pins the one it was made of"):
        evaluate(embedding(output=wanted.output, data=data))
    # pinned, it is the same data set in another place
    pinned = evaluate(embedding(output=wanted.output, data=data.model_copy(update={"snapshot": "1"})))
    assert pinned.facts["parts_made"] == 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"clusters": Clusters(group="verbs")},
            r"clusters\.group=verbs: the encoder gives foreground, background, motion",
        ),
        ({"encoder": "nowhere"}, "no encoder at nowhere"),
    ],
)
def test_refused_before_anything_is_computed(
    embedding: Make, changes: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "write_parts", lambda *_: pytest.fail("computed"))
    with pytest.raises(ValueError, match=said):
        evaluate(embedding(**changes))
    assert not embedding().output.exists()


def test_one_at_a_time_in_a_folder(embedding: Make) -> None:
    wanted = embedding()
    wanted.output.mkdir()
    with (
        protocol.exclusive(wanted.output, "evaluation"),
        pytest.raises(ValueError, match="another `evaluation` is at work here"),
    ):
        evaluate(wanted)


def test_damaged_clips_are_left_out_and_filters_hold(embedding: Make, shards: Path, tmp_path: Path) -> None:
    """Also where all clips of a file are damaged; half the size is half the size."""
    damaged = tmp_path / "damaged"
    shutil.copytree(shards, damaged)
    person = [row for row in read_manifest(damaged).to_pylist() if row["group"] != "person-1"]
    lost = [row["key"] for row in person[4:9]]  # the second file, and one of the third
    for key in lost:
        destroy(damaged, key)
    kept = Filter(exclude_groups=("person-1",))
    data = Data(path=damaged, decode="pyav", workers=1, max_undecodable=1.0, filter=kept)
    wanted = embedding(data=data, part_clips=4, precision="float16", clusters=Clusters(number=2, scale="l2"))
    results = evaluate(wanted)
    there = table(wanted.output)
    assert there["key"].to_pylist() == [row["key"] for row in person if row["key"] not in lost]
    assert open_embeddings(wanted.output).sizes == (4, 0, 3, 4)
    assert there["motion"].type.value_type == pa.float16()
    assert open_embeddings(wanted.output).lost == tuple(results.details["lost"]) == tuple(lost)
    assert "5 clips could not be decoded and are left out; after a repair of the shards: retry=true." in results.notes
    assert results.table("clusters").row(results.main).cells["clips"].value.mean == 11


def test_fewer_clips_than_clusters(embedded: Embedded, embedding: Make) -> None:
    wanted = embedding(clusters=Clusters(number=50))
    shutil.copytree(embedded[0].output, wanted.output)
    results = evaluate(wanted)
    assert "24 clips make no 50 clusters (clusters.number); 24 were looked for." in results.notes
    assert results.table("clusters").row(results.main).cells["clusters"].value.mean == 24


def test_from_object_storage(
    embedded: Embedded, embedding: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same files and a page with clips; what is missing brings only its own shards."""
    wanted, _ = embedded
    near = Path(str(wanted.data.path))
    with s3_server():
        far = place(f"s3://{new_bucket()}/data")
        for path in sorted(path for path in near.rglob("*") if path.is_file()):
            (far / path.relative_to(near).as_posix()).write_bytes(path.read_bytes())
        monkeypatch.setenv("FBM_CACHE", str(tmp_path / "cache"))
        shutil.copytree(wanted.output, embedding().output)
        for part in (3, 4):
            (embedding().output / "embeddings" / f"part-{part:05d}.parquet").unlink()
        results = evaluate(embedding(data=wanted.data.model_copy(update={"path": far})))
        assert results.facts["parts_made"] == 2
        fetched = list((tmp_path / "cache" / "shards").glob("*.tar"))
        assert len(fetched) == 2, "the shards hold five clips each, as the files do"
    assert table(embedding().output).equals(table(wanted.output))
    assert b"<video" in (embedding().output / "page.html").read_bytes()


def test_features_that_float16_cannot_hold(embedding: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "LARGEST", 1e-9)
    with pytest.raises(
        ValueError, match=r"foreground features as large as .* do not fit float16; set precision=float32"
    ):
        evaluate(embedding(precision="float16"))


def test_broken_features_are_refused(embedding: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts.np, "isfinite", lambda value: np.zeros(value.shape, bool))
    with pytest.raises(ValueError, match=r"its foreground features of clip 0-clip-0000 are NaN or infinite"):
        evaluate(embedding())
    assert not list(embedding().output.rglob("*.parquet"))


def test_reading_what_is_not_there(tmp_path: Path, embedded: Embedded) -> None:
    with pytest.raises(ValueError, match="no embeddings here"):
        read(tmp_path)
    (tmp_path / "embeddings").mkdir()
    pq.write_table(pa.table({"key": ["a"]}), tmp_path / "embeddings" / "part-00000.parquet")
    with pytest.raises(ValueError, match="not a file of an embedding"):
        read(tmp_path)
    with pytest.raises(ValueError, match=r"there are no features 'verbs'; these are there: .*motion"):
        features(table(embedded[0].output), "verbs")


def test_mlflow_gets_the_page_and_the_embeddings_only_if_asked(
    embedded: Embedded, embedding: Make, registered: str
) -> None:
    client = connect(registered)
    shutil.copytree(embedded[0].output, embedding().output)
    for experiment, log in (("plain", False), ("all", True)):
        tracking = Tracking(uri=registered, experiment=experiment)
        results = evaluate(embedding(encoder="models:/fbm-encoder/1", tracking=tracking, log_embeddings=log))
        assert results.facts["parts_made"] == 0, "the same weights, wherever they come from"
        run = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])[0]
        logged = {file.path for file in client.list_artifacts(run.info.run_id)}
        assert logged == {*FILES, *(["embeddings"] if log else [])}
        assert run.data.metrics["clips.clusters"] == 24
