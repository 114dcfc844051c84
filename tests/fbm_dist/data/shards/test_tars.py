"""Members come out of tars on a disk and in object storage alike; what is wrong with a shard is said in one line that names it."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from data_tools.places import place
from data_tools.shards import finished_shard
from fbm_dist.data.shards import download, tars
from fbm_dist.data.shards.cache import ShardCache
from fbm_dist.data.shards.tars import ShardReadError, Tars
from tests.datasets import write_dataset
from tests.fbm_dist.data.shards import acts
from tests.fbm_dist.data.shards.served import SIZE, Served
from tests.object_store import new_bucket, s3_server

Caches = Callable[..., ShardCache]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("tars") / "data", clips=6, clips_per_shard=2)


@pytest.fixture(scope="module")
def bucket(dataset: Path) -> Iterator[str]:
    """The same data set in object storage."""
    with s3_server():
        url = f"s3://{new_bucket()}/data"
        for path in dataset.rglob("*.*"):
            place(f"{url}/{path.relative_to(dataset)}").write_bytes(path.read_bytes())
        yield url


def opened(root: str, dataset: Path, cache: ShardCache | None = None) -> Tars:
    stats = [finished_shard(dataset, path.stem) for path in sorted(dataset.glob("shards/*.tar"))]
    assert len(stats) == 3
    assert all(stats)
    names = [f"shards/{s.name}.tar" for s in stats if s]
    return Tars(place(root), names, [s.bytes for s in stats if s], [s.sha256.encode() for s in stats if s], cache)


def members(dataset: Path) -> list[tuple[int, int, int]]:
    """(shard, offset, size) of every member, shuffled."""
    found = []
    for number, path in enumerate(sorted(dataset.glob("shards/*.idx"))):
        words = path.read_text().partition("\n")[2].split()
        found += [(number, int(o), int(s)) for o, s in zip(words[1::4], words[2::4], strict=True)]
    return [found[i] for i in np.random.default_rng(0).permutation(len(found))]


def truth(dataset: Path) -> list[bytes]:
    whole = [path.read_bytes() for path in sorted(dataset.glob("shards/*.tar"))]
    return [whole[shard][offset : offset + size] for shard, offset, size in members(dataset)]


def test_members_of_shards_on_a_disk(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tars, "OPEN_SHARDS", 2)
    shards = f"{dataset.resolve()}/shards/*.tar"
    local = opened(str(dataset), dataset)
    for member, data in zip(members(dataset), truth(dataset), strict=True):
        assert local.read(*member) == data
        assert 1 <= len(acts.open_files(shards)) <= 2
    local.close()
    assert not acts.open_files(shards)
    assert local.read(*members(dataset)[0]) == truth(dataset)[0], "it may be used again"
    local.close()


def test_shards_on_a_disk_touch_no_cache(dataset: Path, cache_of: Caches) -> None:
    cache = cache_of(10)
    local = opened(str(dataset), dataset, cache)
    assert acts.read(local, members(dataset)) == truth(dataset)
    local.bring(0)
    assert local.cache is None
    assert list(cache.folder.iterdir()) == []


@pytest.mark.parametrize("part", [1000, download.PART])
def test_members_of_shards_in_object_storage(
    bucket: str, dataset: Path, tmp_path: Path, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "PART", part)
    cache = ShardCache(tmp_path / "cache", 10**8)
    assert acts.read(opened(bucket, dataset, cache), members(dataset)) == truth(dataset)
    for copy in cache.folder.glob("*.tar"):
        assert copy.read_bytes() in {path.read_bytes() for path in dataset.glob("shards/*.tar")}
    assert len(list(cache.folder.glob("*.tar"))) == 3
    assert acts.read(opened(bucket, dataset), members(dataset)) == truth(dataset), "without a cache"


def test_a_storage_without_concurrent_requests(dataset: Path, tmp_path: Path) -> None:
    for path in dataset.rglob("*.tar"):
        place(f"memory://tars/{path.relative_to(dataset)}").write_bytes(path.read_bytes())
    remote = opened("memory://tars", dataset, ShardCache(tmp_path / "cache", 10**8))
    assert acts.read(remote, members(dataset)) == truth(dataset)


@pytest.mark.parametrize("start", ["spawn", "fork"])
def test_another_process_reads_with_it(bucket: str, dataset: Path, tmp_path: Path, start: str) -> None:
    remote = opened(bucket, dataset, ShardCache(tmp_path / "cache", 10**8))
    first, *others = members(dataset)
    assert remote.read(*first) == truth(dataset)[0], "with a connection and an open file of this process"
    with ProcessPoolExecutor(1, multiprocessing.get_context(start)) as pool:
        assert pool.submit(acts.read, remote, others).result() == truth(dataset)[1:]
    assert remote.read(*first) == truth(dataset)[0]
    assert len(pickle.dumps(remote)) < 2000
    remote.close()


def test_a_forked_process_inherits_it(bucket: str, dataset: Path, tmp_path: Path) -> None:
    """Not pickled: it comes with the memory, the open files and the clients of the parent."""
    remote = opened(bucket, dataset, ShardCache(tmp_path / "cache", 10**8))
    first, *others = members(dataset)
    assert remote.read(*first) == truth(dataset)[0]
    pid = os.fork()
    if not pid:
        code = 1
        try:
            code = int([remote.read(*member) for member in others] != truth(dataset)[1:])
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    remote.close()


def test_a_shard_on_a_disk_that_is_missing_or_cut(dataset: Path, tmp_path: Path) -> None:
    shutil.copytree(dataset, tmp_path / "data")
    local = opened(str(tmp_path / "data"), tmp_path / "data")
    first, second, _ = sorted((tmp_path / "data").glob("shards/*.tar"))
    (shard, offset, size) = next(m for m in members(dataset) if m[0] == 0)
    os.truncate(first, offset + size - 1)
    with pytest.raises(ShardReadError, match=rf"^shards/{first.name}: {size - 1} of {size} bytes at {offset}$"):
        local.read(shard, offset, size)
    with pytest.raises(ShardReadError, match=rf"^shards/{first.name}: 0 of 0 bytes at 512$"):
        local.read(shard, 512, 0)
    second.unlink()
    with pytest.raises(ShardReadError, match=rf"^shards/{second.name}: No such file or directory$"):
        local.read(1, 0, 10)
    local.close()


@pytest.mark.parametrize("cached", [True, False])
def test_a_shard_in_object_storage_that_is_missing_or_cut(eight: Served, cache_of: Caches, cached: bool) -> None:
    eight.send = lambda shard, times: (None, eight.shards[1][: SIZE - 1], eight.shards[2][:10], eight.shards[3])[shard]
    remote = eight.tars(cache_of(8) if cached else None)
    for shard, reason in ((0, "missing"), (1, f"{SIZE - 1} bytes, not {SIZE}"), (2, f"10 bytes, not {SIZE}")):
        told = rf"^{eight.root}/{eight.names[shard]}: {reason}; see: python -m data_tools verify {eight.root}$"
        for _ in range(2):
            with pytest.raises(ShardReadError, match=told):
                remote.read(shard, SIZE - 100, 100)
    assert remote.read(3, 7, 9) == eight.shards[3][7:16]
    assert [shard for shard, _, _ in eight.asked] == [0, 0, 1, 2, 3], "what is known to be bad is not asked for again"
    remote.close()


@pytest.mark.parametrize("cached", [True, False])
def test_a_storage_that_refuses_is_no_damaged_shard(eight: Served, cache_of: Caches, cached: bool) -> None:
    """A clip that nobody can see must not be replaced by another: the run would read on in another order."""
    eight.failure = 503
    with pytest.raises(OSError, match=rf"{eight.names[0]}") as caught:
        eight.tars(cache_of(8) if cached else None).read(0, 0, 10)
    assert not isinstance(caught.value, ShardReadError)
    assert "\n" not in str(caught.value)


def test_a_server_without_ranges(eight: Served, cache_of: Caches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PART", SIZE // 2)
    eight.ranges = False
    with pytest.raises(OSError, match=f"{SIZE} bytes came for a range of {SIZE // 2}; does that server know ranges"):
        eight.tars(cache_of(8)).read(0, 0, 10)


def test_what_reader_processes_import(tmp_path: Path) -> None:
    code = "import sys, fbm_dist.data.shards.ahead; print({'torch', 'pyarrow', 'ray'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
