"""Figures are those that counting by hand gives, whatever the shards, and say what is missing."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from data_tools.building.ledger import Outcome
from data_tools.dataset import commit_snapshot, open_dataset, read_manifest
from data_tools.prune import Pruning, clip_verdict
from data_tools.report import manifests as streaming
from data_tools.report.manifests import AHEAD, manifests
from data_tools.report.stats import stats
from data_tools.sample import MaskStatistics
from data_tools.schema import Stats
from data_tools.shards import write_shard
from tests.data_tools.report.described import FRAMES, HOSTILE, clip, write, write_all


def test_figures_are_those_of_the_manifest(tmp_path: Path) -> None:
    found = stats(Stats(path=str(write_all(tmp_path)))).json
    rows = read_manifest(tmp_path).to_pylist()
    assert (found["clips"], found["frames"], found["films"]["with_clips"]) == (10, 10 * FRAMES, 5)
    assert found["hours"] == pytest.approx(10 * FRAMES / 25 / 3600, rel=1e-3)
    members = Counter[str]()
    for row in rows:
        members.update({m["extension"]: m["size"] for m in row["members"]})
    assert found["bytes"]["members"] == dict(members)
    assert found["bytes"]["total"] == sum(
        (tmp_path / f"shards/{n}.tar").stat().st_size for n in open_dataset(tmp_path).snapshot().shards
    )
    assert found["labels"]["action"]["clips"] == 10
    assert found["labels"]["action"]["top"] == dict(
        Counter(dict(row["labels"])["action"] for row in rows).most_common()
    )
    assert found["groups"] == {"anna": 1}, "a film's own group is none"
    assert found["single_frames"] == {"5": sum(0 <= r < 5 for row in rows for r in row["shot_rank"])} | {
        "10": found["single_frames"]["10"]
    }
    absent = {
        "fingerprint": 10,
        "id": 10,
        "split": 9,
        "licence": 9,
        "attribution": 10,
        "truth": 10,
        "masks": 0,
        "labels": 0,
    }
    assert found["missing"] == absent


def test_keep_rates_under_the_stored_rules_and_the_papers(tmp_path: Path) -> None:
    keep = stats(Stats(path=str(write_all(tmp_path)))).json["keep"]
    rows = read_manifest(tmp_path).to_pylist()
    paper = [clip_verdict(MaskStatistics(**row["statistics"]), Pruning.paper()) for row in rows]
    assert keep["stored"]["kept_clips"] == sum(not row["verdict"] for row in rows) > 0
    assert keep["stored"]["reasons"] == dict(Counter(r for row in rows for r in row["verdict"]).most_common())
    assert keep["paper"]["kept_clips"] == sum(not verdict for verdict in paper)
    assert Counter(keep["paper"]["reasons"]) == Counter(reason for verdict in paper for reason in verdict)
    assert keep["kept_frames"] == sum(sum(row["keep"]) for row in rows)


def test_films_and_reasons_come_from_the_ledger(tmp_path: Path) -> None:
    found = stats(Stats(path=str(write_all(tmp_path)))).json
    films = found["films"]
    assert (films["used"], films["skipped"], films["failed"]) == (5, 2, 1)
    assert films["reasons"]["# frames: shorter than min_frames = #"] == 2
    assert (found["shots_per_film"]["median"], found["shots_per_film"]["max"]) == (2, 4)


def test_a_film_that_goes_on_in_the_next_shard_is_one(tmp_path: Path) -> None:
    root = write(tmp_path, [clip(i, 0.3) for i in range(6)], per_shard=1)
    assert stats(Stats(path=str(root))).json["films"]["with_clips"] == 3


def test_an_older_snapshot_knows_nothing_of_later_films(tmp_path: Path) -> None:
    films = [Outcome(source=f"{i}.mp4", status="skipped", reason="why", snapshot=i) for i in (1, 2)]
    write(tmp_path, [clip(0, 0.3)], films=films)
    write_shard(tmp_path, "later", [clip(7, 0.3)])
    commit_snapshot(tmp_path, open_dataset(tmp_path).settings, ["later"])
    counts = [stats(Stats(path=str(tmp_path), snapshot=s)).json for s in ("1", "latest")]
    assert [(found["clips"], found["films"]["skipped"]) for found in counts] == [(1, 1), (2, 2)]


def test_without_masks_labels_and_ledger_it_says_so(tmp_path: Path) -> None:
    bare = {
        "masks": "none",
        "statistics": None,
        "verdict": (),
        "keep": (),
        "boxes": (),
        "mask_size": None,
        "labels": {},
    }
    full = stats(Stats(path=str(write_all(tmp_path / "full"))))
    found = stats(Stats(path=str(write(tmp_path / "bare", [clip(i, 0.3, **bare) for i in range(4)]))))
    assert found.json.keys() == full.json.keys()
    text = "\n".join(found.lines())
    for told in ("films.jsonl is missing", "judged nothing", "labels: in all of 4 clips", "split           none given"):
        assert told in text
    assert found.json["single_frames"]["5"] == 20


def test_lines_are_single_lines_without_tricks_and_json_is_one(tmp_path: Path) -> None:
    root = str(write_all(tmp_path))
    lines = stats(Stats(path=root)).lines()
    assert all(line.isprintable() for line in lines), "a terminal is not told to do anything"
    assert any("\\u202e" in line for line in lines)
    (line,) = stats(Stats(path=root, format="json")).lines()
    assert json.loads(line)["labels"]["action"]["top"][HOSTILE] == 1


def test_shards_that_are_not_the_snapshots_are_refused(tmp_path: Path) -> None:
    write(tmp_path, [clip(i, 0.3) for i in range(4)], per_shard=2)
    write_shard(tmp_path, "000002", [clip(9, 0.3)])
    with pytest.raises(ValueError, match="differ from snapshot 1"):
        stats(Stats(path=str(tmp_path)))


def test_only_a_few_shards_are_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write(tmp_path, [clip(i, 0.3) for i in range(3 * AHEAD)], per_shard=1)
    read: list[str] = []
    real = streaming.read_table
    monkeypatch.setattr(streaming, "read_table", lambda root, name: read.append(name) or real(root, name))
    for number, _ in enumerate(manifests(root, open_dataset(root).snapshot())):
        assert len(read) <= number + 1 + AHEAD


def test_a_missing_shard_is_one_line(tmp_path: Path) -> None:
    root = write_all(tmp_path)
    (root / "shards/000003.stats.json").unlink()
    with pytest.raises(ValueError, match=r"shard 000003 is missing or unfinished; see: python -m data_tools verify"):
        stats(Stats(path=str(root)))
