"""Real recordings and damaged files: counts agree with what is known about them, and each file has an outcome with a reason."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

from data_tools.building.ledger import read_ledger
from data_tools.building.pipeline import prepare
from data_tools.care.verify import verify
from data_tools.config import load
from data_tools.dataset import read_manifest
from data_tools.schema import Prepare, Verify
from data_tools.shards import read_sample
from data_tools.videos import decode, probe

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("FBM_REAL_DATA", ROOT.parent / "shared/data"))
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data at {DATA}; FBM_REAL_DATA may name them")


@pytest.mark.parametrize(("folder", "every"), [("weizmann", 12), ("mixed-clips", 1)])
def test_every_frame_of_a_film_at_a_constant_rate_is_read_once(folder: str, every: int) -> None:
    with (DATA / folder / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))[::every]
    steady = 0
    for row in rows:
        path = DATA / folder / row["path"]
        found = probe(path)
        if found.steady:
            steady += 1
            count = sum(1 for _ in decode(path, size_of=lambda h, w: (16, 16)))
            assert count == int(row["frames"]), row["path"]
        else:
            count = sum(1 for _ in decode(path, found.fps, size_of=lambda h, w: (16, 16)))
            assert count == pytest.approx(int(row["frames"]), rel=0.05), row["path"]
    assert steady > 0.8 * len(rows)


def test_films_held_upright_are_tall() -> None:
    """Films of a telephone, stored as 320x568 or 568x320 with rotation tags."""
    films = [DATA / f"robustness/decord/video_{n}.mov" for n in (0, 90, 270)]
    if not all(p.is_file() for p in films):
        pytest.skip("the turned films are not in this copy of the data")
    assert [probe(p).size for p in films] == [(320, 568), (568, 320), (568, 320)]


def test_damaged_files_each_have_an_outcome(tmp_path: Path) -> None:
    files = sorted(p for p in (DATA / "robustness").rglob("*") if p.is_file() and p.suffix != ".csv")[::6]
    (tmp_path / "list.txt").write_text("".join(f"{p.resolve()}\n" for p in files))
    options = [f"input={tmp_path / 'list.txt'}", f"output={tmp_path / 'data'}", "masks.kind=none", "workers=2"]
    summary = prepare(load(Prepare, None, options))
    outcomes = read_ledger(tmp_path / "data")
    assert len(outcomes) == len(files) == summary.films
    assert all(o.reason for o in outcomes if o.status != "used")
    assert not [o for o in outcomes if o.status == "failed"], "no crash, no hang"
    assert summary.used > 5
    assert verify(load(Verify, None, [f"path={tmp_path / 'data'}", "decode=10"])).problems == []


def test_davis_frames_and_masks(tmp_path: Path) -> None:
    sequence = DATA / "davis2016-train-240p/soccerball"
    options = [f"input={sequence}", f"output={tmp_path / 'data'}", "masks.kind=given", "workers=1"]
    prepare(load(Prepare, None, options))
    rows = read_manifest(tmp_path / "data").to_pylist()
    assert sum(r["num_frames"] for r in rows) == len(list((sequence / "frames").iterdir()))
    for row in rows:
        sample = read_sample(tmp_path / "data", row)
        assert sample.truth is not None
        assert 0.001 < (sample.truth > 0).mean() < 0.3
