"""The loader over object storage: the clips of a local disk, in the same order, each shard fetched once; and when the store is gone."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from pathlib import Path

import pytest
import torch

from data_tools.places import Place, place
from fbm_dist.clip import Clip
from fbm_dist.data.loader import Loader, read_once
from fbm_dist.data.opened import OpenedData
from fbm_dist.data.order.arrangement import Shuffled
from fbm_dist.data.order.plan import Order
from fbm_dist.data.shards.ahead import Ahead
from fbm_dist.schema import Data
from tests.object_store import new_bucket, s3_server

Make = Callable[..., Data]


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    with s3_server():
        yield


@pytest.fixture
def stored(server: None, vp9: Path) -> Place:
    root = place(f"s3://{new_bucket()}/data")
    for path in sorted(vp9.rglob("*")):
        if path.is_file():
            (root / str(path.relative_to(vp9))).write_bytes(path.read_bytes())
    return root


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("FBM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def take(data: Data, count: int, rank: int = 0, world_size: int = 1, consumed: int = 0) -> list[Clip]:
    with Loader(
        data, seed=0, global_batch=4, micro_batch=4 // world_size, rank=rank, world_size=world_size, consumed=consumed
    ) as loader:
        return list(islice(loader, count))


def test_the_same_clips_as_from_a_disk(vp9: Path, stored: Place, data_of: Make, cache: Path) -> None:
    far = data_of(stored, reverse=0.5, mirror=0.5).model_copy(update={"block": 2})
    near = data_of(vp9, reverse=0.5, mirror=0.5).model_copy(update={"block": 2, "shuffle": "blocks"})
    with Loader(far, seed=0, global_batch=4, micro_batch=4) as loader:
        assert loader.shuffle == "blocks of 2 shards"
    wanted = take(near, 8)
    for one, other in zip(take(far, 8), wanted, strict=True):
        assert one.key == other.key
        assert torch.equal(one.video, other.video)
        assert one.mask is not None
        assert other.mask is not None
        assert torch.equal(one.mask, other.mask)
    assert [clip.key for clip in take(far, 5, consumed=12)] == [clip.key for clip in wanted[3:]]
    assert len(list((cache / "shards").glob("*.tar"))) == 3  # all of them, once
    shutil.rmtree(cache / "shards")
    ranks = [take(far, 3, rank, 2) for rank in range(2)]
    assert [
        list(sum(zip(*pair, strict=True), ())) for pair in zip(*([c.key for c in r] for r in ranks), strict=True)
    ] == [list(clip.key) for clip in wanted[:3]]


def test_a_cache_that_is_too_small_costs_requests_and_no_clip(
    vp9: Path, stored: Place, data_of: Make, cache: Path
) -> None:
    tiny = data_of(stored).model_copy(update={"cache_gb": 1e-6})
    wanted = [clip.key for clip in take(data_of(vp9).model_copy(update={"shuffle": "blocks"}), 4)]
    assert [clip.key for clip in take(tiny, 4)] == wanted
    assert not list((cache / "shards").glob("*.tar"))


def test_a_pass_reads_from_there_too(vp9: Path, stored: Place, data_of: Make) -> None:
    pairs = zip(read_once(data_of(stored), batch=5), read_once(data_of(vp9), batch=5), strict=True)
    assert all(one.key == other.key and torch.equal(one.video, other.video) for one, other in pairs)


def test_a_store_that_is_gone_stops_the_run_and_replaces_nothing(
    stored: Place, data_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Loader(data_of(stored, decode="pyav"), seed=0, global_batch=4, micro_batch=4) as loader:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # the readers, which start now, find nobody there
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # of each of our five
        monkeypatch.setattr(Ahead, "_run", lambda self: None)  # it has the client of this process
        with pytest.raises(RuntimeError, match=r"^reading shards failed: .*after 5 attempts"):
            list(islice(loader, 3))
        assert loader.undecodable == 0


def test_what_is_needed_next_is_told_without_end(vp9: Path, data_of: Make) -> None:
    opened = OpenedData(data_of(vp9), torch.device("cpu"), batch=2)
    order = Order(Shuffled(len(opened), 0), 0, 4, 2, consumed=40)
    source = opened.source(order, "pyav")
    told = list(islice(source.needed(0, 3), 20))  # of three shards, all at hand after the first few positions
    assert {shard for _, shard in told[:3]} == {0, 1, 2}
    positions = [position for position, _ in told]
    assert positions[0] == 40
    assert positions == sorted(positions)
    assert max(later - earlier for earlier, later in pairwise(positions)) == 1000
    for position, shard in told:
        part, entry = opened.parts.locate(order.clip(position))
        assert part.row(entry).shard == shard


def test_all_processes_end_at_once_when_a_far_stream_is_closed(stored: Place, data_of: Make) -> None:
    before = set(threading.enumerate())

    def ahead() -> bool:
        return any(thread.name == "shards-ahead" for thread in set(threading.enumerate()) - before)

    with Loader(data_of(stored), seed=0, global_batch=4, micro_batch=4) as loader:
        next(iter(loader))
        assert ahead()
    assert not ahead()
