"""plan: from all films it predicts what prepare makes; from some of them, scaled by the size of the files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_tools.building import forecast
from data_tools.building.forecast import plan
from data_tools.building.pipeline import prepare
from data_tools.config import load
from data_tools.schema import Plan
from data_tools.unlc import device
from tests.films import film, settings


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("plan") / "films"
    for i in range(6):
        film(root / f"{i}.mp4", *[(10 * i + shot, 40) for shot in range(i + 1)])
    (root / "broken.mp4").write_bytes(b"broken" * 50)
    return root


def planned(films: Path, *more: str) -> Plan:
    return load(Plan, None, [f"input={films}", "masks.kind=none", "short_side=64", "workers=2", *more])


def test_a_sample_of_all_predicts_what_is_made(films: Path, tmp_path: Path) -> None:
    made = prepare(settings(films, tmp_path / "data"))
    found = plan(planned(films, "sample=100"))
    assert (found.films, found.sample_films) == (7, 7)
    assert found.frames == pytest.approx(made.frames)
    assert found.clips == pytest.approx(made.clips)
    assert found.bytes == pytest.approx(made.bytes)
    assert found.frames_low <= found.frames <= found.frames_high
    assert min(found.core_hours, found.hours, found.films_per_hour) > 0
    told = json.loads(found.lines()[-1])
    assert told["films"] == 7
    assert told["gpu_hours"] == 0
    assert "no GPU" in found.lines()[2]


def test_more_films_and_more_cores_scale(films: Path) -> None:
    some = plan(planned(films, "sample=3", "films=7000", "cores=200", "core_hour=0.5"))
    assert some.sample_films == 3
    assert some.clips == pytest.approx(21 * 1000, rel=0.35), "long films are large files"
    assert some.cost == pytest.approx(some.hours * 200 * 0.5)
    assert some.films_per_hour == pytest.approx(7000 / some.hours)


def test_gpus_that_make_masks_are_told_and_paid(films: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of eight GPUs, for there are two workers; without masks to make, as here is no GPU."""
    some = planned(films, "sample=3", "films=70", "cores=20", "core_hour=0.5", "gpu_hour=10")
    on_gpus = some.model_copy(update={"masks": some.masks.model_copy(update={"device": "cuda"})})
    monkeypatch.setattr(device, "_look", lambda _: {"gpus": 8, "why": ""})
    assert device.gpus_of(some) == 0
    assert device.gpus_of(on_gpus) == 2
    monkeypatch.setattr(forecast, "gpus_of", lambda _: 2)
    found = plan(some)
    assert found.gpu_hours == pytest.approx(found.hours * 20), "two workers had two GPUs, so twenty cores have twenty"
    assert found.cost == pytest.approx(found.hours * 20 * (0.5 + 10))
    assert "GPU-hours" in found.lines()[2]
