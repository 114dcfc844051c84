"""One download a shard and node, never too many bytes, and no read that fails for want of room."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fbm_dist.data.shards import cache as module
from fbm_dist.data.shards import download, tars
from fbm_dist.data.shards.cache import ShardCache
from fbm_dist.data.shards.room import NoRoomError, Room
from fbm_dist.data.shards.tars import ShardReadError
from tests.data_tools.building.test_full_disk import disk as disk
from tests.fbm_dist.data.shards import acts
from tests.fbm_dist.data.shards.served import SIZE, Served
from tests.logs import ours

Caches = Callable[..., ShardCache]
Mount = Callable[[str], Path]


def copies(cache: ShardCache, served: Served) -> list[int]:
    """Which shards the cache has; nothing else is in it but its lock."""
    names = {path.name for path in cache.folder.iterdir()} - {"lock"}
    assert {Path(name).suffix for name in names} <= {".tar"}
    return sorted(served.sha256.index(Path(name).stem) for name in names)


def used(cache: ShardCache, served: Served, *shards: int) -> None:
    """Say that these were used in this order, long ago."""
    for moment, shard in enumerate(shards):
        os.utime(cache.folder / f"{served.sha256[shard]}.tar", (moment, moment))


def read(cache: ShardCache, served: Served, *shards: int) -> None:
    """Read of each of them, and close it."""
    for shard in shards:
        assert acts.read(served.tars(cache), [(shard, 5, 100)]) == [served.shards[shard][5:105]]


@pytest.mark.distributed
def test_processes_that_want_one_shard_download_it_once(
    eight: Served, cache_of: Caches, others: ProcessPoolExecutor, tmp_path: Path
) -> None:
    marks = [tmp_path / str(number) for number in range(4)]
    eight.hold = lambda shard, first: acts.wait_for(lambda: all(mark.exists() for mark in marks))
    cache = cache_of(8)
    wanted = [(0, 10, 1000), (0, 0, SIZE), (1, SIZE - 1, 1)]
    results = [others.submit(acts.read, eight.tars(cache), wanted, mark) for mark in marks]
    expected = [eight.shards[shard][offset : offset + size] for shard, offset, size in wanted]
    assert [result.result() for result in results] == [expected] * 4
    assert eight.downloads() == {0: 1, 1: 1}
    assert copies(cache, eight) == [0, 1]


@pytest.mark.distributed
def test_a_download_that_is_killed_is_taken_over(
    eight: Served, cache_of: Caches, others: ProcessPoolExecutor, tmp_path: Path
) -> None:
    cache = cache_of(8)
    eight.hold = lambda shard, first: first and acts.wait_for(go_on.exists)
    go_on = tmp_path / "go on"
    context = multiprocessing.get_context("spawn")
    doomed = [
        context.Process(target=acts.read_in_parts, args=(eight.tars(cache), [(shard, 0, 10)], 1000)) for shard in (0, 1)
    ]
    for process in doomed:
        process.start()
    acts.wait_for(lambda: {(0, 1000, 1999), (1, 1000, 1999)} <= set(eight.asked))
    waiting = others.submit(acts.read, eight.tars(cache), [(0, 0, SIZE)])
    acts.wait_for(lambda: "->" in Path("/proc/locks").read_text())  # it is blocked behind the first
    assert [path.stat().st_size for path in cache.folder.glob("*.part")] == [SIZE] * 2, "both take up their whole size"
    for process in reversed(doomed):
        process.kill()
        process.join()
    go_on.touch()
    assert waiting.result() == [eight.shards[0]]
    assert copies(cache, eight) == [0], "what the other one left is gone"
    read(cache, eight, 1)
    assert eight.downloads() == {0: 2, 1: 2}


@pytest.mark.distributed
def test_the_bound_holds_while_four_processes_read_at_random(
    eight: Served, cache_of: Caches, others: ProcessPoolExecutor
) -> None:
    cache = cache_of(3)
    random = np.random.default_rng(0)
    plans = [
        [(int(shard), int(random.integers(SIZE - 200)), 200) for shard in random.integers(8, size=60)] for _ in range(4)
    ]
    results = [others.submit(acts.read, eight.tars(cache), plan) for plan in plans]
    most = 0
    while not all(result.done() for result in results):
        with cache._room._accounts():  # nothing grows meanwhile
            sizes = {}
            for entry in os.scandir(cache.folder):
                try:
                    sizes[entry.inode()] = entry.stat().st_size
                except FileNotFoundError:
                    continue
        most = max(most, sum(sizes.values()))
    for plan, result in zip(plans, results, strict=True):
        assert result.result() == [eight.shards[shard][offset : offset + size] for shard, offset, size in plan]
    assert 2 * SIZE <= most <= 3 * SIZE
    assert eight.downloads().total() > 8, "some were evicted and came again"
    assert len(copies(cache, eight)) == 3


def test_the_longest_unused_goes_first(eight: Served, cache_of: Caches) -> None:
    cache = cache_of(3)
    read(cache, eight, 0, 1, 2)
    used(cache, eight, 2, 0, 1)
    read(cache, eight, 2)  # now the last to go
    read(cache, eight, 3)
    assert copies(cache, eight) == [1, 2, 3]
    read(cache, eight, 4)
    assert copies(cache, eight) == [2, 3, 4]
    assert eight.downloads() == {0: 1, 1: 1, 2: 1, 3: 1, 4: 1}


def test_what_is_open_goes_last_and_can_be_read_on(eight: Served, cache_of: Caches) -> None:
    cache = cache_of(2)
    readers = [eight.tars(cache) for _ in range(3)]
    assert readers[0].read(0, 0, 10) == eight.shards[0][:10]
    read(cache, eight, 1)
    used(cache, eight, 0, 1)
    read(cache, eight, 2)
    assert copies(cache, eight) == [0, 2], "0 is the older, but open"
    readers[1].read(2, 0, 10)
    used(cache, eight, 0, 2)
    with pytest.raises(NoRoomError, match="all in use"):
        readers[2].bring(3)
    assert copies(cache, eight) == [0, 2], "what is only brought ahead takes no place of what is open"
    readers[2].read(3, 0, 10)
    assert copies(cache, eight) == [2, 3], "all were open"
    assert readers[0].read(0, 20, SIZE - 20) == eight.shards[0][20:]
    assert len(acts.open_files(f"{cache.folder}/*.tar (deleted)")) == 1
    readers[0].read(2, 0, 10)
    assert not acts.open_files(f"{cache.folder}/*.tar (deleted)"), "its space is free"
    for reader in readers:
        reader.close()


def test_evicted_files_are_closed_at_the_next_shard(eight: Served, cache_of: Caches) -> None:
    cache = cache_of(8)  # so that four may be open
    reader = eight.tars(cache)
    for shard in (0, 1, 2):
        reader.read(shard, 0, 10)
    for shard in (0, 1):
        (cache.folder / f"{eight.sha256[shard]}.tar").unlink()
    assert len(acts.open_files(f"{cache.folder}/*.tar (deleted)")) == 2
    reader.read(3, 0, 10)
    assert not acts.open_files(f"{cache.folder}/*.tar (deleted)")
    assert reader.read(0, 0, 10) == eight.shards[0][:10]
    reader.close()


@pytest.mark.parametrize("part", [1000, download.PART])
def test_damaged_bytes(
    eight: Served, cache_of: Caches, part: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(download, "PART", part)
    damaged = eight.shards[0][:2500] + b"x" + eight.shards[0][2501:]
    cache = cache_of(8)
    eight.send = lambda shard, times: damaged if shard == 0 or times == 1 else eight.shards[shard]
    read(cache, eight, 1)
    assert eight.downloads() == {1: 2}, "right at the second time"
    reader = eight.tars(cache)
    told = rf"^{eight.root}/shards/000.tar: not the bytes .* in 2 downloads; see: python -m data_tools verify {eight.root}$"
    for _ in range(3):
        with pytest.raises(ShardReadError, match=told):
            reader.read(0, 0, 10)
    assert eight.downloads() == {0: 2, 1: 2}
    assert copies(cache, eight) == [1]


def test_a_copy_that_was_cut_is_downloaded_again(eight: Served, cache_of: Caches) -> None:
    cache = cache_of(8)
    read(cache, eight, 0)
    os.truncate(cache.folder / f"{eight.sha256[0]}.tar", 50)
    read(cache, eight, 0)
    assert eight.downloads() == {0: 2}


def test_a_download_that_ends_just_before_ours_begins(
    eight: Served, cache_of: Caches, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = cache_of(8)
    begin = Room.begin

    def late(room: Room, name: str, wait: bool) -> int | None:
        monkeypatch.setattr(Room, "begin", begin)
        read(cache, eight, 0)
        return begin(room, name, wait)

    monkeypatch.setattr(Room, "begin", late)
    read(cache, eight, 0)
    assert eight.downloads() == {0: 1}
    assert copies(cache, eight) == [0]


def test_a_limit_below_one_shard(eight: Served, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = ShardCache(tmp_path / "cache", SIZE - 1)
    reader = eight.tars(cache)
    for shard in (0, 1, 0):
        assert reader.read(shard, 30, 40) == eight.shards[shard][30:70]
    assert eight.asked == [(0, 30, 69), (1, 30, 69), (0, 30, 69)]
    assert copies(cache, eight) == []
    (record,) = ours(caplog)
    assert record.levelno == logging.WARNING
    assert "GB do not hold a shard of" in record.getMessage()
    assert "read from object storage, clip by clip" in record.getMessage()


@pytest.mark.parametrize("reserved", [True, False])
def test_a_full_disk(
    eight: Served,
    disk: Mount,
    reserved: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A file system of 96 kB, with room for two shards; also such a one that reserves no space: the disk is full in mid-download."""

    def refuse(file: int, offset: int, size: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    if not reserved:
        monkeypatch.setattr(os, "posix_fallocate", refuse)
    monkeypatch.setattr(download, "PART", 10_000)
    folder = disk("size=96k")
    cache = ShardCache(folder / "cache", 10**9)
    reader = eight.tars(cache)
    for shard in (0, 1, 2):
        assert reader.read(shard, 0, SIZE) == eight.shards[shard]
    assert not ours(caplog)
    assert 2 in copies(cache, eight), "others made way, though this process had them open"
    reader.close()

    for path in cache.folder.glob("*.tar"):
        path.unlink()
    with pytest.raises(OSError, match="No space left"):
        (folder / "filler").write_bytes(bytes(1 << 20))
    assert shutil.disk_usage(folder).free == 0
    eight.asked.clear()
    for shard in (4, 5, 4):
        assert reader.read(shard, 30, 40) == eight.shards[shard][30:70]
    assert [member for member in eight.asked if member[2] == 69] == [(4, 30, 69), (5, 30, 69), (4, 30, 69)]
    assert not reserved or len(eight.asked) == 3, "a disk that reserves space is found full before the download"
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "No space left on device; what is not there is read from object storage" in record.getMessage()
    assert copies(cache, eight) == []

    (folder / "filler").unlink()
    assert reader.read(4, 30, 40) == eight.shards[4][30:70]
    assert copies(cache, eight) == [], "it is not tried at every clip"
    monkeypatch.setattr(tars, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + tars.PATIENCE))
    assert reader.read(4, 30, 40) == eight.shards[4][30:70]
    assert copies(cache, eight) == [4]
    reader.close()


def test_a_folder_that_cannot_be_written_is_read(eight: Served, disk: Mount, caplog: pytest.LogCaptureFixture) -> None:
    folder = disk("size=1m")
    cache = ShardCache(folder, 10**9)
    read(cache, eight, 0)
    disk("size=1m,ro")
    read(cache, eight, 0, 1)
    assert eight.downloads() == {0: 1}
    assert "Read-only file system" in caplog.text


def test_a_folder_that_was_removed_is_made_again(eight: Served, cache_of: Caches) -> None:
    cache = cache_of(8)
    read(cache, eight, 0)
    shutil.rmtree(cache.folder)
    read(cache, eight, 0, 1)
    assert copies(cache, eight) == [0, 1]


def test_the_usual_limit(
    eight: Served, cache_of: Caches, tmp_path: Path, disk: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = disk("size=1m")
    cache = ShardCache(folder / "cache")
    assert cache.limit == (1 << 20) // 2
    read(cache, eight, 0, 1, 2)
    assert ShardCache(folder / "cache").limit == pytest.approx(cache.limit, abs=3 * 4096), "what it holds is its own"
    monkeypatch.setattr(module, "LARGEST", 1000)
    assert ShardCache(folder / "cache").limit == 1000
    monkeypatch.setenv("FBM_CACHE", str(tmp_path / "node"))
    assert ShardCache().folder == tmp_path / "node/shards"
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"file: .*; set FBM_CACHE to a folder of this machine$"):
        ShardCache(tmp_path / "file")
