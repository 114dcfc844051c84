"""data.decode=auto: measured once, the same on every rank, and what a checkpoint had stays."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from fbm_dist.data import opened as room
from fbm_dist.data.decoding import measure
from fbm_dist.data.index.cache import cache_folder
from fbm_dist.data.loader import Loader
from fbm_dist.data.opened import OpenedData
from fbm_dist.schema import Data
from tests.datasets import destroy, write_dataset

Make = Callable[..., Data]
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _nothing_is_remembered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FBM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(OpenedData, "of_the_run", None)


class Exchange:
    """Ranks as threads that tell each other what they have."""

    def __init__(self, size: int) -> None:
        self.values: list[Any] = [None] * size
        self.barrier = threading.Barrier(size, timeout=60)

    def of(self, rank: int) -> Callable[[Any], list[Any]]:
        def gather(value: Any) -> list[Any]:
            self.values[rank] = value
            self.barrier.wait()
            found = list(self.values)
            self.barrier.wait()
            return found

        return gather


def on_ranks(ranks: list[OpenedData], pinned: str | None = None) -> list[str]:
    exchange = Exchange(len(ranks))
    with ThreadPoolExecutor(len(ranks)) as pool:
        jobs = [pool.submit(one.agree, exchange.of(rank), pinned) for rank, one in enumerate(ranks)]
        return [job.result() for job in jobs]


def timed(monkeypatch: pytest.MonkeyPatch, *answers: dict[str, float]) -> list[tuple[str, ...]]:
    """Speeds that are made up, one answer a call; the calls."""
    calls: list[tuple[str, ...]] = []
    lock = threading.Lock()

    def speeds(decoders: tuple[str, ...], *rest: Any) -> tuple[dict[str, float], str]:
        with lock:
            calls.append(tuple(decoders))
            return answers[len(calls) - 1], "no reason"

    monkeypatch.setattr(room, "speeds", speeds)
    return calls


def test_the_faster_one_is_measured_and_remembered(
    vp9: Path, data_of: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "fbm_dist.data")
    with Loader(data_of(vp9), seed=0, global_batch=4, micro_batch=4) as loader:
        chosen = loader.decoder
        next(iter(loader))
    assert "decodes (measured, clips/s: pyav" in caplog.text
    (kept,) = (cache_folder() / "decoders").iterdir()
    told = json.loads(kept.read_text())
    assert set(told["clips_per_second"]) == {"pyav", "dali-cpu"}
    assert min(told["clips_per_second"].values()) > 1
    assert told["decoder"] == chosen == max(told["clips_per_second"], key=told["clips_per_second"].__getitem__)
    calls = timed(monkeypatch)
    assert OpenedData(data_of(vp9), CPU, batch=4).decoder == chosen  # read, not measured
    assert calls == []
    with pytest.raises(IndexError):  # other clips are measured anew
        _ = OpenedData(data_of(vp9, size=64), CPU, batch=4).decoder


def test_ranks_take_the_one_whose_slowest_rank_is_the_fastest(
    vp9: Path, data_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed(monkeypatch, {"pyav": 90.0, "dali-cpu": 40.0}, {"pyav": 20.0, "dali-cpu": 30.0})
    ranks = [OpenedData(data_of(vp9), CPU, batch=4) for _ in range(2)]
    assert on_ranks(ranks) == ["dali-cpu", "dali-cpu"]
    assert [one.decoder for one in ranks] == ["dali-cpu", "dali-cpu"]


def test_one_that_fails_on_a_rank_is_taken_by_none(vp9: Path, data_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    timed(monkeypatch, {"pyav": 90.0, "dali-cpu": 40.0}, {"pyav": 0.0, "dali-cpu": 30.0})
    assert on_ranks([OpenedData(data_of(vp9), CPU, batch=4) for _ in range(2)]) == ["dali-cpu", "dali-cpu"]


def test_where_all_fail_every_rank_says_so(vp9: Path, data_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    timed(monkeypatch, {"pyav": 0.0, "dali-cpu": 0.0})
    with pytest.raises(ValueError, match="pyav and dali-cpu fail to read the first clips: no reason"):
        OpenedData(data_of(vp9), CPU, batch=4).agree(lambda value: [value])


def test_the_checkpoints_decoder_stays(vp9: Path, data_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = timed(monkeypatch)
    assert on_ranks([OpenedData(data_of(vp9), CPU, batch=4) for _ in range(2)], "dali-cpu") == ["dali-cpu"] * 2
    assert (
        OpenedData(data_of(vp9, decode="pyav"), CPU, batch=4).agree(lambda v: [v], "dali-cpu") == "pyav"
    )  # the config says it
    assert calls == []


def test_nothing_is_measured_where_there_is_no_choice(
    tmp_path: Path, data_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = timed(monkeypatch)
    root = write_dataset(tmp_path / "data", codec="h264", clips=4)
    assert OpenedData(data_of(root), CPU, batch=4).decoder == "pyav"
    assert calls == []


def test_a_decoder_that_breaks_is_no_candidate(vp9: Path, data_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """As NVDEC does in a container that hides it: the graph cannot be built, or fails."""
    build = measure.graph.pipeline

    def broken(source: Any, *, decoder: str, **options: Any) -> Any:
        if decoder == "pyav":
            raise RuntimeError("libnvcuvid is not there")
        return build(source, decoder=decoder, **options)

    monkeypatch.setattr(measure.graph, "pipeline", broken)
    assert OpenedData(data_of(vp9), CPU, batch=4).decoder == "dali-cpu"


def test_a_broken_clip_does_not_cost_the_decoder(tmp_path: Path, data_of: Make) -> None:
    root = write_dataset(tmp_path / "data", clips=4)
    destroy(root, "0-clip-0001")
    opened = OpenedData(data_of(root), CPU, batch=4)
    opened.agree(lambda value: [value])
    (kept,) = (cache_folder() / "decoders").iterdir()
    assert min(json.loads(kept.read_text())["clips_per_second"].values()) > 1


def test_a_rank_whose_reading_fails_still_answers(
    vp9: Path, data_of: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ranks = [OpenedData(data_of(vp9), CPU, batch=4) for _ in range(2)]

    def gone(*of: Any) -> bytes:
        raise OSError("the network is gone")

    for part in ranks[1].parts:
        monkeypatch.setattr(part.tars, "read", gone)
    exchange = Exchange(2)
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(one.agree, exchange.of(rank)) for rank, one in enumerate(ranks)]
        for job in jobs:
            with pytest.raises(ValueError, match=r"fail to read the first clips: .*the network is gone"):
                job.result()
    assert "the network is gone" in caplog.text


def test_validation_reads_with_the_decoder_of_the_run(
    vp9: Path, data_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed(monkeypatch, {"pyav": 90.0, "dali-cpu": 40.0})
    with Loader(data_of(vp9), seed=0, global_batch=4, micro_batch=4) as loader:
        loader.agree(lambda value: [value], "dali-cpu")
        assert OpenedData(data_of(vp9, mask=False), CPU, batch=3).decoder == "dali-cpu"
    assert OpenedData(data_of(vp9, mask=False), CPU, batch=3).decoder == "pyav"
