"""The ledger of films: what a data set holds is never guessed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_tools.building.pipeline import prepare
from data_tools.config import load
from data_tools.schema import Prepare
from data_tools.videos import encode


def files(root: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(root.iterdir())}


def test_a_data_set_without_its_ledger_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    frames = np.random.default_rng(0).integers(0, 255, (20, 64, 64, 3), dtype=np.uint8)
    (tmp_path / "films/a.mp4").write_bytes(encode(frames, (25, 1), "h264"))
    given = [f"input={tmp_path / 'films'}", f"output={tmp_path / 'data'}", "masks.kind=none", "workers=1"]
    prepare(load(Prepare, None, given))
    (tmp_path / "data/films.jsonl").unlink()
    before = files(tmp_path / "data/shards")
    with pytest.raises(ValueError, match=r"films.jsonl is missing"):
        prepare(load(Prepare, None, given))
    assert files(tmp_path / "data/shards") == before
