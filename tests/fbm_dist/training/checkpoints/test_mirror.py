"""Checkpoints in object storage: whole or not there at all, whatever is killed or damaged on the way."""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from fbm_dist.training.checkpoints import mirror
from fbm_dist.training.checkpoints.marker import FORMAT, MARKER, digest, name_of, read_manifest
from fbm_dist.training.checkpoints.mirror import Mirror
from tests import object_store


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "PAUSE", 0.001)


def make_checkpoint(folder: Path, step: int, size: int = 1000) -> Path:
    """A whole local checkpoint of `step`: two files, one below a folder of its own, whose bytes tell the step."""
    checkpoint = folder / name_of(step)
    (checkpoint / "engine").mkdir(parents=True, exist_ok=True)
    names = ("objective.safetensors", "engine/rank-00000.pt")
    for number, name in enumerate(names):
        (checkpoint / name).write_bytes(bytes([step % 256, number]) * size)
    files = {name: digest(checkpoint / name) for name in names}
    (checkpoint / MARKER).write_text(json.dumps({"format": FORMAT, "step": step, "files": files}))
    return checkpoint


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != MARKER}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"file://{tmp_path}/store/run"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store/run"


def round_trip(url: str, tmp_path: Path) -> None:
    """What every kind of storage must do."""
    store = Mirror(url, keep=2)
    store.check()
    assert store.newest() is None
    for step in (10, 20, 30):
        store.send(make_checkpoint(tmp_path / "local", step))
    other = Mirror(url, keep=2)
    assert other.newest() == (30, name_of(30))
    assert other.newest(before=30) == (20, name_of(20))
    assert other.newest(before=20) is None, "the third is one too many"
    for step in (20, 30):
        folder = other.fetch(name_of(step), tmp_path / "fetched")
        assert contents(folder) == contents(tmp_path / "local" / name_of(step))
        assert read_manifest(folder) == read_manifest(tmp_path / "local" / name_of(step))
    assert names(tmp_path / "fetched") == [name_of(20), name_of(30)]
    with pytest.raises(ValueError, match="missing"):
        other.fetch(name_of(10), tmp_path / "fetched")


def test_files(url: str, tmp_path: Path) -> None:
    round_trip(url, tmp_path)


def test_memory(tmp_path: Path) -> None:
    round_trip(f"memory://{tmp_path.name}/run", tmp_path)


@pytest.fixture(scope="module")
def s3_server() -> Iterator[None]:
    with object_store.s3_server():
        yield


@pytest.fixture
def s3(s3_server: None) -> str:
    """A run's folder in an empty bucket."""
    return f"s3://{object_store.new_bucket()}/run"


def test_s3(s3: str, tmp_path: Path) -> None:
    round_trip(s3, tmp_path)


def test_s3_in_parts(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files above 100 MB go up in parts; with smaller parts, smaller files do."""
    store = Mirror(s3, keep=1)
    in_parts = partial(store._files.put_file, chunksize=5 * 2**20)  # the smallest that S3 takes
    monkeypatch.setattr(store._files, "put_file", in_parts)
    sent = make_checkpoint(tmp_path / "local", 1, size=6_000_000)
    store.send(sent)
    etag = store._files.info(f"{s3}/{sent.name}/objective.safetensors")["ETag"]
    assert etag.endswith('-3"'), "it went up in three parts"
    assert contents(store.fetch(sent.name, tmp_path / "fetched")) == contents(sent)


def test_s3_without_its_bucket(s3: str) -> None:
    with pytest.raises(ValueError, match=r"s3://nowhere/run: cannot write.*bucket") as caught:
        Mirror("s3://nowhere/run", keep=1).check()
    assert "\n" not in str(caught.value)


def test_an_unknown_kind_of_storage_is_one_line() -> None:
    with pytest.raises(ValueError, match=r"training.checkpoint_mirror=what://a: Protocol not known"):
        Mirror("what://a", keep=1)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    known = importlib.import_module("fsspec.registry")
    monkeypatch.delitem(known._registry, "s3", raising=False)
    monkeypatch.setitem(sys.modules, "s3fs", None)  # as if it were not installed
    with pytest.raises(ValueError, match=r"s3://bucket/run: Install s3fs.*pip install 'fbm-dist\[s3\]'"):
        Mirror("s3://bucket/run", keep=1)


def test_a_store_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file where a folder should be")
    with pytest.raises(ValueError, match=r"cannot write: .*; set the storage's credentials"):
        Mirror(f"file://{tmp_path}/store/run", keep=1).check()


def test_check_leaves_nothing(url: str, store: Path) -> None:
    Mirror(url, keep=1).check()
    assert names(store) == []


def test_what_is_kept(url: str, store: Path, tmp_path: Path) -> None:
    """The newest, those asked for, and later ones of a session that this run did not start from."""
    there = Mirror(url, keep=2)
    for step in (1, 2, 3, 4):
        there.send(make_checkpoint(tmp_path, step), keep_also={name_of(1)})
    assert names(store) == [name_of(step) for step in (1, 3, 4)]
    there.send(make_checkpoint(tmp_path, 2), keep_also={name_of(1)})
    assert names(store) == [name_of(step) for step in (1, 2, 3, 4)]


def test_the_same_step_again_replaces(url: str, tmp_path: Path) -> None:
    there = Mirror(url, keep=2)
    there.send(make_checkpoint(tmp_path, 5, size=10))
    again = make_checkpoint(tmp_path, 5, size=20)
    there.send(again)
    assert contents(there.fetch(name_of(5), tmp_path / "fetched")) == contents(again)


def test_what_is_not_whole_is_not_sent(url: str, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, 5)
    (folder / MARKER).unlink()
    with pytest.raises(ValueError, match="no whole checkpoint"):
        Mirror(url, keep=2).send(folder)


def test_a_torn_marker_is_no_checkpoint(url: str, store: Path, tmp_path: Path) -> None:
    there = Mirror(url, keep=2)
    for step in (1, 2):
        there.send(make_checkpoint(tmp_path, step))
    marker = store / name_of(2) / MARKER
    marker.write_bytes(marker.read_bytes()[:20])
    assert there.newest() == (1, name_of(1))
    there.send(make_checkpoint(tmp_path, 3))
    assert names(store) == [name_of(1), name_of(3)]


@pytest.mark.parametrize("damage", ["flipped", "cut", "missing"])
def test_a_damaged_file_is_refused_and_the_one_before_is_there(
    damage: str, url: str, store: Path, tmp_path: Path
) -> None:
    there = Mirror(url, keep=2)
    for step in (1, 2):
        there.send(make_checkpoint(tmp_path / "local", step))
    path = store / name_of(2) / "engine/rank-00000.pt"
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(data[:-1] + (b"?" if damage == "flipped" else b""))
    with pytest.raises(ValueError, match=r"engine/rank-00000.pt is .* in the mirror"):
        there.fetch(name_of(2), tmp_path / "fetched")
    assert names(tmp_path / "fetched") == [], "nothing half fetched stays"
    there.fetch(name_of(1), tmp_path / "fetched")


def test_a_fetched_checkpoint_replaces_a_damaged_local_one(url: str, tmp_path: Path) -> None:
    there = Mirror(url, keep=1)
    local = make_checkpoint(tmp_path, 7)
    before = contents(local)
    there.send(local)
    (local / "objective.safetensors").write_bytes(b"")
    assert there.fetch(local.name, tmp_path) == local
    assert contents(local) == before


class Failing:
    """A store whose uploads fail or arrive cut short a number of times, as a network does it."""

    def __init__(self, inner: object, failures: int, cut: bool) -> None:
        self.inner, self.failures, self.cut = inner, failures, cut

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def put_file(self, local: str, remote: str) -> None:
        self.failures -= 1
        if self.failures < 0:
            self.inner.put_file(local, remote)  # type: ignore[attr-defined]
        elif self.cut:
            self.inner.pipe_file(remote, Path(local).read_bytes()[:-1])  # type: ignore[attr-defined]
        else:
            raise ConnectionResetError("connection reset\nby peer")


@pytest.mark.parametrize("cut", [False, True])
def test_uploads_are_tried_again(cut: bool, url: str, tmp_path: Path) -> None:
    there = Mirror(url, keep=2)
    there._files = Failing(there._files, mirror.ATTEMPTS - 1, cut)
    sent = make_checkpoint(tmp_path, 1)
    there.send(sent)
    assert contents(there.fetch(sent.name, tmp_path / "fetched")) == contents(sent)


@pytest.mark.parametrize("cut", [False, True])
def test_a_store_that_stays_away_costs_one_line_and_nothing_else(cut: bool, url: str, tmp_path: Path) -> None:
    there = Mirror(url, keep=2)
    there.send(make_checkpoint(tmp_path, 1))
    there._files = Failing(there._files, 10**6, cut)
    with pytest.raises(OSError, match=rf"cannot write {name_of(2)}/.* after 5 attempts: .*") as caught:
        there.send(make_checkpoint(tmp_path, 2))
    assert "\n" not in str(caught.value)
    assert Mirror(url, keep=2).newest() == (1, name_of(1))


class Killing(Failing):
    """A store that the process dies at, by SIGKILL, when half of the file called `at` has gone up."""

    def __init__(self, inner: object, at: str) -> None:
        super().__init__(inner, 0, False)
        self.at = at

    def put_file(self, local: str, remote: str) -> None:
        if remote.endswith(self.at):
            data = Path(local).read_bytes()
            self.inner.pipe_file(remote, data[: len(data) // 2])  # type: ignore[attr-defined]
            os.kill(os.getpid(), signal.SIGKILL)
        super().put_file(local, remote)


@pytest.mark.parametrize("at", ["engine/rank-00000.pt", "objective.safetensors", MARKER])
def test_a_killed_upload_leaves_the_one_before(at: str, url: str, store: Path, tmp_path: Path) -> None:
    """SIGKILL to the sending process in the middle of a file; what it left is removed by the next send."""
    there = Mirror(url, keep=2)
    there.send(make_checkpoint(tmp_path, 1))
    second = make_checkpoint(tmp_path, 2)
    child = os.fork()
    if not child:
        try:
            there._files = Killing(there._files, at)
            there.send(second)
        finally:
            os._exit(0)  # not through pytest's own exit
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert (store / second.name / at).exists()
    assert Mirror(url, keep=2).newest() == (1, name_of(1))
    there.send(make_checkpoint(tmp_path, 3))
    assert names(store) == [name_of(1), name_of(3)]
    assert there.newest() == (3, name_of(3))
