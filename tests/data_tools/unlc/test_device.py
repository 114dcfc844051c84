"""masks.device: what is refused before anything is made, what is written down, and that the tensors are what `prepare` then uses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from data_tools.building.pipeline import prepare
from data_tools.clips import settings_hash, versions
from data_tools.config import ConfigError
from data_tools.execution.processes import WORKER
from data_tools.masks import soft_masks
from data_tools.schema import Prepare
from data_tools.unlc import device
from tests.films import film, settings
from tests.moving_disc import scene


def of(*more: str) -> Prepare:
    return settings(Path("films"), Path("data"), "masks.kind=unlc", *more)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_prepare_says_so_and_makes_nothing(tmp_path: Path) -> None:
    film(tmp_path / "films/a.mp4", (1, 20))
    with pytest.raises(
        ValueError, match=r"masks.device=cuda, and no GPU is here \(.+\); give masks.device=cpu"
    ) as caught:
        prepare(settings(tmp_path / "films", tmp_path / "data", "masks.kind=unlc", "masks.device=cuda"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "data").exists()


def found(monkeypatch: pytest.MonkeyPatch, gpus: int, why: str) -> None:
    monkeypatch.setattr(device, "_look", lambda _: {"gpus": gpus, "why": why})


def test_who_makes_the_flow_is_settled_and_shapes_the_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    found(monkeypatch, 1, "")
    engine = device.with_device(of("masks.device=cuda"), notes.append)
    assert (engine.masks.flow, notes) == ("engine", [])
    found(monkeypatch, 1, "no optical-flow engine here")
    dis = device.with_device(of("masks.device=cuda"), notes.append)
    assert (dis.masks.flow, notes) == ("dis", ["no optical-flow engine here; DIS on the CPU makes the flow"])
    with pytest.raises(ValueError, match=r"masks.flow=engine: no optical-flow engine here; give masks.flow=dis"):
        device.with_device(of("masks.device=cuda", "masks.flow=engine"), notes.append)
    asked = device.with_device(of("masks.device=cuda", "masks.flow=dis"), notes.append)
    assert (asked, len(notes)) == (dis, 1)
    assert len({settings_hash(one) for one in (engine, dis, of())}) == 3
    assert engine.shaping()["masks"]["flow"] == "engine"


def test_on_the_cpu_nothing_is_looked_for_and_data_sets_of_before_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_look", lambda _: pytest.fail("looked for a GPU"))
    assert device.with_device(of(), pytest.fail) == of()
    assert not {"device", "flow"} & of().shaping()["masks"].keys()


def test_a_cluster_must_be_told() -> None:
    with pytest.raises(ValueError, match=r"masks.flow=engine or masks.flow=dis"):
        device.with_device(of("masks.device=cuda", "executor=ray"), print)
    told = of("masks.device=cuda", "executor=ray", "masks.flow=engine")
    assert device.with_device(told, print) == told


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (("masks.kind=none", "masks.device=cuda"), "device=cuda belongs to kind=unlc"),
        (("masks.flow=dis",), "flow belongs to device=cuda"),
        (("masks.device=gpu",), "device"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(given: tuple[str, ...], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        of(*given)


def test_workers_are_dealt_to_the_gpus_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    seen = []
    for number in range(4):
        monkeypatch.setenv(WORKER, str(number))
        seen.append(device.own_gpu().index)
    assert seen == [0, 1, 0, 1]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(RuntimeError, match="sees no GPU"):
        device.own_gpu()


def test_masks_of_a_clip_come_from_the_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the CPU in the GPU's place: the same lines."""
    frames, _ = scene(6, (1, 0))
    working: list[Any] = list(frames)
    monkeypatch.setattr(device, "own_gpu", lambda: torch.device("cpu"))
    on_tensors = of("masks.device=cuda", "masks.flow=dis")
    ours, kind = soft_masks(working, (48, 64), None, on_tensors, print)
    theirs, _ = soft_masks(working, (48, 64), None, of(), print)
    assert kind == "unlc"
    assert ours is not None
    assert theirs is not None
    assert ours.shape == (6, 48, 64)
    assert (ours != theirs).any(), "another method"
    inside, expected = ours > 127, theirs > 127
    assert (inside & expected).sum() > 0.8 * (inside | expected).sum()


def test_samples_say_what_made_them() -> None:
    assert "torch" not in versions("unlc")
    assert {"torch"} == versions("unlc", None, "dis").keys() - versions("unlc").keys()
    assert {"torch", "dali"} <= versions("unlc", None, "engine").keys()
    assert versions("none", None, "engine").keys() == versions("none").keys()


def test_the_look_reports_a_broken_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device.sys, "executable", "/bin/false")
    assert device._look(of("masks.device=cuda").masks) == {"gpus": 0, "why": "exit status 1"}
