"""Shards come in the order of the plan, no more of them than allowed, and from one process each; and the thread ends."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fbm_dist.data.shards import download
from fbm_dist.data.shards.ahead import Ahead
from fbm_dist.data.shards.cache import ShardCache
from fbm_dist.data.shards.tars import Tars
from tests.fbm_dist.data.shards import acts
from tests.fbm_dist.data.shards.served import SIZE, Served

Caches = Callable[..., ShardCache]
PLAN = [(0, 5), (3, 2), (10, 7), (20, 0), (30, 1), (40, 6)]  # position, shard


def brought(served: Served) -> list[int]:
    return [shard for shard, _, _ in served.asked]


def idle(ahead: Ahead) -> bool:
    """Does the thread wait for the reader."""
    return bool(ahead._moved._waiters)  # type: ignore[attr-defined]


def ended(ahead: Ahead) -> bool:
    return ahead._thread is not None and not ahead._thread.is_alive()


def test_so_many_shards_in_the_order_of_the_plan(eight: Served, cache_of: Caches) -> None:
    ahead = Ahead(eight.tars(cache_of(16)), itertools.chain(PLAN, itertools.repeat((50, 3))), count=2)
    expected = [shard for _, shard in PLAN]
    for position, shards in ((-1, 2), (2, 3), (3, 4), (9, 4), (10, 5), (20, 6)):
        ahead.at(position)
        acts.wait_for(lambda: len(brought(eight)) == shards and idle(ahead))  # noqa: B023
        assert brought(eight) == expected[:shards]
    ahead.close()
    assert ended(ahead)


def test_half_of_the_cache_at_most(eight: Served, cache_of: Caches) -> None:
    cache = cache_of(6)
    ahead = Ahead(eight.tars(cache), PLAN, count=100)
    acts.wait_for(lambda: idle(ahead))
    assert brought(eight) == [5, 2, 7]
    ahead.at(100)
    acts.wait_for(lambda: ended(ahead))
    assert brought(eight) == [5, 2, 7], "the reader has long been where the others were needed"
    ahead.close()


def test_a_cache_for_one_shard_is_left_to_the_reader(eight: Served, cache_of: Caches) -> None:
    ahead = Ahead(eight.tars(cache_of(1)), PLAN, count=100)
    acts.wait_for(lambda: idle(ahead))
    ahead.at(0)
    ahead.close()
    assert brought(eight) == []


def test_what_was_brought_is_not_downloaded_again(eight: Served, cache_of: Caches) -> None:
    reader = eight.tars(cache_of(16))
    ahead = Ahead(reader, PLAN, count=100)
    acts.wait_for(lambda: ended(ahead))
    for _, shard in PLAN:
        assert reader.read(shard, 0, 10) == eight.shards[shard][:10]
    ahead.close()
    reader.close()
    assert sorted(brought(eight)) == sorted(shard for _, shard in PLAN)


def test_ranks_share_the_work(eight: Served, cache_of: Caches) -> None:
    """Two at once download different shards: the first answers come only when two are under way."""
    cache = cache_of(16)
    eight.hold = lambda shard, first: acts.wait_for(lambda: len(eight.asked) >= 2)
    ranks = [Ahead(eight.tars(cache), PLAN, count=100) for _ in range(2)]
    acts.wait_for(lambda: all(map(ended, ranks)))
    assert eight.downloads() == {shard: 1 for _, shard in PLAN}
    assert len(list(cache.folder.glob("*.tar"))) == len(PLAN)
    for ahead in ranks:
        ahead.close()


def test_errors_are_left_to_the_reader(eight: Served, cache_of: Caches) -> None:
    eight.send = lambda shard, times: None if shard == 2 else eight.shards[shard]
    reader = eight.tars(cache_of(16))
    ahead = Ahead(reader, PLAN, count=100)
    acts.wait_for(lambda: ended(ahead))
    ahead.close()
    assert brought(eight) == [shard for _, shard in PLAN], "asked for once each"
    with pytest.raises(OSError, match=r"002.tar: missing"):
        reader.read(2, 0, 10)


def test_it_ends_in_the_middle_of_a_download(eight: Served, cache_of: Caches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PART", 1000)
    cache = cache_of(16)
    go_on = threading.Event()
    eight.hold = lambda shard, first: first and go_on.wait(60)
    ahead = Ahead(eight.tars(cache), PLAN, count=100)
    acts.wait_for(lambda: any(first for _, first, _ in eight.asked))
    assert list(cache.folder.glob("*.part"))
    ahead.close()
    assert ended(ahead), "though the server says nothing"
    assert not list(cache.folder.glob("*.part"))
    ahead.close()
    go_on.set()


def test_shards_on_a_disk_need_no_thread(tmp_path: Path, cache_of: Caches) -> None:
    before = set(threading.enumerate())  # threads of other tests may come and go meanwhile
    ahead = Ahead(Tars(tmp_path, ["shards/a.tar"], [10], [b"0" * 64], cache_of(1)), PLAN, count=2)
    assert not any(thread.name == "shards-ahead" for thread in set(threading.enumerate()) - before)
    ahead.at(3)
    ahead.close()


def test_a_process_that_ends_does_not_wait_for_it(eight: Served, cache_of: Caches, tmp_path: Path) -> None:
    """Nobody closed it; the server answers nothing."""
    go_on = threading.Event()
    eight.hold = lambda shard, first: go_on.wait(60)
    code = (
        "import sys; from data_tools.places import place\n"
        "from fbm_dist.data.shards.ahead import Ahead; from fbm_dist.data.shards.cache import ShardCache\n"
        "from fbm_dist.data.shards.tars import Tars; from pathlib import Path\n"
        f"tars = Tars(place('{eight.root}'), ['{eight.names[0]}'], [{SIZE}], [b'{eight.sha256[0]}'],"
        f" ShardCache(Path('{cache_of(9).folder}'), {9 * SIZE}))\n"
        "ahead = Ahead(tars, [(0, 0)], 1); sys.stdin.read(); print('done')"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, stderr=-1, text=True)
    acts.wait_for(lambda: eight.asked)
    out, err = process.communicate(timeout=50)  # the server is still silent
    assert (process.returncode, out, err) == (0, "done\n", "")
    go_on.set()
    read = eight.tars(cache_of(9)).read(0, 0, 10)
    assert read == eight.shards[0][:10], "it left no lock"
