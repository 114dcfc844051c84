"""A lost dataset.json is made again as it was, or nobody pretends to know what it said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from data_tools.care.recovery import lost
from data_tools.care.repair import repair
from data_tools.care.scrub import scrub
from data_tools.care.verify import verify
from data_tools.dataset import open_dataset
from data_tools.schema import Repair, Scrub, Verify
from data_tools.shards import remove_shard, shard_file
from tests.data_tools.care.cases import SETTINGS, files, write


@pytest.fixture
def grown(tmp_path: Path) -> Path:
    """Two snapshots."""
    root = tmp_path / "data"
    root.mkdir()
    write(root)
    write(root, {"e": [[8], [8]]})
    return root


def fix(root: Path, **options: bool) -> list[str]:
    return repair(Repair(path=str(root), **options)).lines()


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) * 3 // 4], lambda b: b.replace(b'"clips"', b'"clops"'), lambda b: b + b"}"]
)
def test_a_damaged_one_is_made_again_as_it_was(grown: Path, damage: Callable[[bytes], bytes]) -> None:
    before = files(grown)
    (grown / "dataset.json").write_bytes(damage(before["dataset.json"]))
    assert fix(grown)[0] == "dataset.json: lost or damaged: made from the shards' statistics and the ledger"
    assert files(grown) == before


def test_a_missing_one_lacks_the_settings(grown: Path) -> None:
    before = open_dataset(grown)
    (grown / "dataset.json").unlink()
    assert "would be repaired" in fix(grown, dry_run=True)[-1]
    assert not (grown / "dataset.json").exists()
    assert fix(grown)[0].endswith("the settings are lost, so that `prepare` can add nothing to it")
    after = open_dataset(grown)
    assert (before.settings, after.settings) == (SETTINGS, {})
    assert after.snapshots == before.snapshots
    assert verify(Verify(path=str(grown), decode=0)).problems == []


def test_without_a_ledger_all_is_one_snapshot(grown: Path) -> None:
    before = open_dataset(grown).snapshot()
    for name in ("dataset.json", "films.jsonl"):
        (grown / name).unlink()
    fix(grown)
    after = open_dataset(grown)
    assert after.snapshots == (before.model_copy(update={"id": "1"}),)


def test_after_shards_were_rewritten_older_snapshots_are_withdrawn(grown: Path) -> None:
    (grown.parent / "ids").write_text("id-c\n")
    scrub(Scrub(path=str(grown), ids=str(grown.parent / "ids")))
    before = open_dataset(grown).snapshot()
    (grown / "dataset.json").write_text("")
    fix(grown)
    after = open_dataset(grown)
    assert after.snapshot() == before
    assert {s.withdrawn for s in after.snapshots[:-1]} == {"dataset.json was lost"}


def test_what_nobody_can_know_is_an_error(grown: Path) -> None:
    (grown / "dataset.json").unlink()
    shard_file(grown, "000001-1", "tar").touch()
    with pytest.raises(ValueError, match=r"dataset.json and 000001-1.stats.json are both lost"):
        fix(grown)
    remove_shard(grown, "000001-1")
    for kind in ("tar", "idx", "parquet", "stats.json"):
        shard_file(grown, "000001-1", kind).write_bytes(shard_file(grown, "000001", kind).read_bytes())
    with pytest.raises(ValueError, match="shards 000001 and 000001-1 are both there"):
        fix(grown)


def test_without_a_shard_there_is_nothing_to_recover(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards/.000000.tar.7.tmp").touch()
    with pytest.raises(ValueError, match="there is no whole shard"):
        fix(tmp_path)


def test_a_data_set_of_another_version_is_not_lost(grown: Path, tmp_path: Path) -> None:
    assert not lost(grown)
    content = json.loads((grown / "dataset.json").read_text())
    (grown / "dataset.json").write_text(json.dumps(content | {"schema_version": 1, "snapshots": "old"}))
    assert not lost(grown)
    with pytest.raises(ValueError, match="schema version 1"):
        fix(grown)
    (grown / "dataset.json").unlink()
    (grown / "staging").mkdir()
    assert not lost(grown), "it was never finished"
    assert not lost(tmp_path / "nowhere")
