"""Frame rates and licences of the films that were trained on, for the model card."""

from __future__ import annotations

from pathlib import Path

import pytest

from fbm_dist.data import provenance
from fbm_dist.data.provenance import films_of
from fbm_dist.schema import Data, Portion
from tests.datasets import write_dataset


def test_clips_are_counted_over_a_mixture(tmp_path: Path) -> None:
    one = write_dataset(tmp_path / "one", clips=6, masks=False, truth=False)
    two = write_dataset(tmp_path / "two", clips=4, masks=False, truth=False, seed=1)
    data = Data(path=one, mix=(Portion(path=two),))
    assert films_of(data) == {"fps": {"25": 10}, "licences": {"not stated": 10}}


def test_what_cannot_be_counted_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert films_of(Data(path=tmp_path / "gone")) == {}
    one = write_dataset(tmp_path / "one", clips=6, masks=False, truth=False, clips_per_shard=2)
    monkeypatch.setattr(provenance, "MOST_SHARDS", 2)
    assert films_of(Data(path=one)) == {}
