"""Data sets in object storage: the same index as on a disk, built from statistics and manifests alone, opened by one request."""

from __future__ import annotations

import pickle
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest

from data_tools.places import Place, place
from fbm_dist.data.index.index import Index
from fbm_dist.data.index.selection import digest, select
from fbm_dist.schema import ClipSpec, Filter
from tests import object_store
from tests.fbm_dist.data.index.varied import write_varied

CLIP = ClipSpec(frames=1, mask=False)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_varied(tmp_path_factory.mktemp("local") / "data")[0]


@pytest.fixture(scope="module", params=["s3", "memory"])
def store(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of an empty folder."""
    if request.param == "memory":
        yield f"memory://{uuid.uuid4().hex}"
        return
    with object_store.s3_server():
        yield f"s3://{object_store.new_bucket()}"


@pytest.fixture
def remote(store: str, local: Path) -> Place:
    """The data set there, without the tars: the index needs none."""
    root = place(f"{store}/{uuid.uuid4().hex}")
    for path in local.rglob("*"):
        if path.suffix in (".json", ".parquet"):
            (root / path.relative_to(local).as_posix()).write_bytes(path.read_bytes())
    return root


@pytest.fixture(autouse=True)
def _nothing_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tars are told apart by their digests, and these are those of `local`."""
    (tmp_path / "cache").mkdir()
    monkeypatch.setenv("FBM_CACHE", str(tmp_path / "cache"))


def test_the_index_is_that_of_a_disk(
    remote: Place, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = pickle.loads(pickle.dumps(Index.open(remote)))
    assert index.root == remote
    chosen = Filter(split="train", pruned=True)
    entries = select(index, chosen, CLIP).kept.tolist()
    (tmp_path / "other").mkdir()
    monkeypatch.setenv("FBM_CACHE", str(tmp_path / "other"))
    here = Index.open(local)
    assert here.folder != index.folder
    for name in ("rows", "keys", "labels", "tars"):
        assert np.array_equal(getattr(index, name), getattr(here, name))
    assert (index.shards, index.label_names, index.splits) == (here.shards, here.label_names, here.splits)
    assert entries == select(here, chosen, CLIP).kept.tolist()
    assert digest(index, chosen, CLIP) == digest(here, chosen, CLIP)


def test_once_it_is_cached_a_start_reads_only_the_list_of_snapshots(remote: Place) -> None:
    first = Index.open(remote)
    entries = select(first, Filter(), ClipSpec(frames=1, frames_per_shot=2)).kept.tolist()
    assert isinstance(remote, type(first.root))
    for path in list((remote / "shards").iterdir()):
        path.unlink()
    again = Index.open(remote)
    assert again == first
    assert select(again, Filter(), ClipSpec(frames=1, frames_per_shot=2)).kept.tolist() == entries


def test_an_exclusion_list_may_lie_there_too(remote: Place) -> None:
    listed = remote / "opted-out.txt"
    listed.write_bytes(b"clip-4\nclip-8\n")
    index = Index.open(remote)
    chosen = Filter.model_construct(**(Filter().model_dump() | {"exclude_keys": listed}))
    kept = select(index, chosen, CLIP).kept.tolist()
    assert kept == [row for row in range(index.clips) if row not in (4, 8)]


def test_a_shard_that_is_not_there_is_named(remote: Place) -> None:
    (remote / "shards" / "shard-1.stats.json").unlink()
    with pytest.raises(ValueError, match=r"shards/shard-1.tar: missing; see: python -m data_tools verify"):
        Index.open(remote)


def test_no_data_set_there(store: str) -> None:
    with pytest.raises(ValueError, match=r"nothing.*: no data set \(dataset.json is missing\)"):
        Index.open(place(f"{store}/nothing"))


def test_a_store_that_does_not_answer_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    for name, value in {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "secret"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr("data_tools.places.time.sleep", lambda _: None)
    with pytest.raises(ValueError, match=r"^s3://bucket/data: the data set cannot be opened: .*127\.0\.0\.1") as error:
        Index.open(place("s3://bucket/data"))
    assert "\n" not in str(error.value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.mark.parametrize("content", [b"{}", b"no json", b"[1, 2]"])
def test_what_is_no_list_of_snapshots_is_refused(remote: Place, content: bytes) -> None:
    (remote / "dataset.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"dataset.json: not a data set"):
        Index.open(remote)
