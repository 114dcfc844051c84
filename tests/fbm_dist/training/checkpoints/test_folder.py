"""Saving in the background: training goes on, a reader sees whole checkpoints only, and the ranks agree on what is there."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fbm_dist.training.checkpoints.folder import Checkpoints
from fbm_dist.training.checkpoints.marker import FORMAT, MARKER, digest, name_of, read_manifest
from fbm_dist.training.checkpoints.mirror import Mirror
from fbm_dist.training.checkpoints.parts import Part
from fbm_dist.training.distributed import World, start
from tests.distributed import run_ranks
from tests.runs import make_run

ALONE = World(rank=0, local_rank=0, size=1, local_size=1, device=torch.device("cpu"))


class Gate:
    """A disk that writes nothing until it is opened."""

    def __init__(self) -> None:
        self.opened = threading.Event()

    def __call__(self, folder: Path) -> None:
        assert self.opened.wait(20)
        nothing(folder)


def part(rank: int = 0, value: float = 1.0) -> Part:
    return Part(rank, {("exp_avg", f"p{rank}", 0): torch.full((4,), value)}, {}, {})


def nothing(folder: Path) -> None:
    """What rank 0 assembles here: no weights."""
    for path in folder.glob("weights-*"):
        path.unlink()


def vote(checkpoints: Checkpoints) -> None:
    """What the trainer does after a step, in a world of one."""
    checkpoints.heed(checkpoints.signals())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


@pytest.fixture
def gate() -> Iterator[Gate]:
    found = Gate()
    yield found
    found.opened.set()


def test_training_goes_on_while_a_checkpoint_is_written(folder: Path, gate: Gate) -> None:
    checkpoints = Checkpoints(folder, 2, ALONE, background=True)
    checkpoints.begin(1, {"said": "first"}, part(), gate)  # returns, though the disk is stuck
    for _ in range(3):
        vote(checkpoints)
        assert checkpoints.newest() is None
        assert list(folder.glob("step-*")) == []
    gate.opened.set()
    checkpoints.finish()
    found = checkpoints.newest()
    assert found is not None
    assert found[0] == folder / "step-00000001"
    assert (found[1]["step"], found[1]["said"], found[1]["format"]) == (1, "first", FORMAT)
    assert sorted(p.name for p in found[0].iterdir()) == [MARKER, "optimizer-00000.safetensors", "rank-00000.pt"]
    checkpoints.close()


def test_votes_alone_bring_a_save_to_its_end(folder: Path) -> None:
    """No step ever waits: `heed` with what the ranks signal is enough."""
    checkpoints = Checkpoints(folder, 2, ALONE, background=True)
    checkpoints.begin(7, {}, part(), nothing)
    end = time.monotonic() + 60
    while not checkpoints.newest():
        vote(checkpoints)
        assert time.monotonic() < end
        time.sleep(0.005)
    checkpoints.close()


def test_a_stale_vote_does_not_publish_the_next_save(folder: Path, gate: Gate) -> None:
    """On a GPU a ballot is read one step late: one of before the save must not count for it."""
    checkpoints = Checkpoints(folder, 5, ALONE, background=True)
    checkpoints.begin(1, {}, part(), nothing)
    checkpoints.finish()
    stale = checkpoints.signals()
    checkpoints.begin(2, {}, part(), gate)
    checkpoints.heed(stale)
    gate.opened.set()
    assert [p.name for p in folder.glob("step-*")] == ["step-00000001"]
    checkpoints.finish()
    assert len(list(folder.glob("step-*"))) == 2
    checkpoints.close()


def test_the_newest_and_the_best_are_kept(folder: Path) -> None:
    checkpoints = Checkpoints(folder, 2, ALONE)
    for step in range(1, 6):
        checkpoints.begin(step, {}, part(), nothing, keep=[2] if step >= 2 else [])
    assert sorted(p.name for p in folder.iterdir()) == [name_of(2), name_of(4), name_of(5)]
    newest = checkpoints.newest(lambda manifest: manifest["step"] < 5)
    assert newest is not None
    assert newest[0].name == name_of(4)
    checkpoints.close()


def test_failures_are_told_and_the_third_in_a_row_ends_the_run(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(target: Path) -> None:
        raise OSError(28, "No space left on device")

    checkpoints = Checkpoints(folder, 2, ALONE)
    checkpoints.begin(1, {}, part(), nothing)
    for step, assemble in ((2, broken), (3, broken), (4, nothing), (5, broken), (6, broken)):
        checkpoints.begin(step, {}, part(), assemble)
    told = capsys.readouterr().out
    assert told.count("No space left on device") == 4
    with pytest.raises(
        ValueError, match=r"step 7 could not be written .*No space left.* last good one is intact"
    ) as caught:
        checkpoints.begin(7, {}, part(), broken)
    assert getattr(caught.value, "agreed", False)
    assert sorted(p.name for p in folder.iterdir()) == [name_of(1), name_of(4)]
    checkpoints.close()


def test_the_last_save_may_not_fail(folder: Path) -> None:
    def broken(target: Path) -> None:
        raise OSError(28, "No space left on device")

    checkpoints = Checkpoints(folder, 2, ALONE, background=True)
    checkpoints.begin(1, {}, part(), broken)
    with pytest.raises(ValueError, match="No space left on device"):
        checkpoints.finish(last=True)
    checkpoints.close()


def two_ranks(rank: int, folder: Path, late: int) -> tuple[list[str], int]:
    """One rank's disk is slow: nothing is published before it has written. (what was there while it wrote, votes needed)"""
    world = start(make_run(folder).training)
    checkpoints = Checkpoints(folder, 2, world, background=True)

    voted = threading.Event()

    class Slow(Part):
        def write(self, target: Path) -> None:
            assert rank != late or voted.wait(60)
            super().write(target)

    ready = part(rank)
    checkpoints.begin(3, {}, Slow(ready.rank, ready.pieces, ready.buffers, ready.random), nothing)
    early, votes = [p.name for p in folder.glob("step-*")], 0
    while not checkpoints.newest():
        votes += 1
        rows = world.gather(checkpoints.signals())
        checkpoints.heed([max(column) for column in zip(*rows, strict=True)])
        voted.set()
    world.barrier()
    files = json.loads((folder / name_of(3) / MARKER).read_text())["files"]
    assert set(files) == {
        f"{n}-0000{r}.{e}" for n, e in (("optimizer", "safetensors"), ("rank", "pt")) for r in range(2)
    }
    checkpoints.close()
    return early, votes


@pytest.mark.distributed
@pytest.mark.parametrize("late", [0, 1])
def test_nothing_is_published_before_the_slowest_rank_has_written(late: int, tmp_path: Path) -> None:
    for early, votes in run_ranks(2, two_ranks, tmp_path, late):
        assert early == []
        assert votes > 1


def sent(checkpoints: Checkpoints) -> None:
    """Wait until the store has what was saved: a send that has not begun gives way to the next."""
    checkpoints._senders.submit(lambda: None).result(60)


class Store:
    """A mirror in a folder, whose newest checkpoint may be damaged."""

    def __init__(self, folder: Path) -> None:
        self.mirror = Mirror(str(folder), 3)
        self.kept: list[Collection[str]] = []

    def send(self, folder: Path, keep_also: Collection[str] = ()) -> None:
        self.kept.append(list(keep_also))
        self.mirror.send(folder, keep_also)

    def newest(self, before: int | None = None) -> tuple[int, str] | None:
        return self.mirror.newest(before)

    def fetch(self, name: str, into: Path) -> Path:
        return self.mirror.fetch(name, into)


def test_a_run_folder_that_is_lost_comes_back_from_the_mirror(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path / "store")
    checkpoints = Checkpoints(folder, 2, ALONE, copies=store)
    for step in (1, 2, 3):
        checkpoints.begin(step, {"said": step}, part(value=step), nothing, keep=[1])
        sent(checkpoints)
    checkpoints.close()
    assert store.kept == [[name_of(1)]] * 3
    shutil.rmtree(folder)
    damaged = tmp_path / "store" / name_of(3) / "optimizer-00000.safetensors"
    damaged.write_bytes(damaged.read_bytes()[::-1])
    again = Checkpoints(folder, 2, ALONE, copies=store)
    found = again.open()
    assert found is not None
    assert (found[0].name, found[1]["said"]) == (name_of(2), 2)
    told = capsys.readouterr().out
    assert "passed over for the one before" in told
    assert "fetched from the mirror" in told
    assert again.open() is not None  # nothing newer there now than what can be had
    again.close()


def test_a_damaged_checkpoint_is_fetched_anew(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoints = Checkpoints(folder, 2, ALONE, copies=Store(tmp_path / "store"))
    for step in (1, 2):
        checkpoints.begin(step, {}, part(value=step), nothing)
    checkpoints.close()
    (folder / name_of(2) / "optimizer-00000.safetensors").write_bytes(b"damaged")
    found = Checkpoints(folder, 2, ALONE, copies=Store(tmp_path / "store")).open()
    assert found is not None
    assert found[0].name == name_of(2)
    assert "fetched anew from the mirror" in capsys.readouterr().out


def test_a_store_that_fails_ends_no_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Away:
        def send(self, folder: Path, keep_also: Collection[str] = ()) -> None:
            raise OSError("the store is away")

        def newest(self, before: int | None = None) -> tuple[int, str] | None:
            return None

        def fetch(self, name: str, into: Path) -> Path:
            raise AssertionError

    checkpoints = Checkpoints(folder, 1, ALONE, copies=Away())
    for step in (1, 2, 3):
        checkpoints.begin(step, {}, part(), nothing)
        sent(checkpoints)
    checkpoints.close()
    assert capsys.readouterr().out.count("was not copied: the store is away") == 3
    assert (folder / name_of(3)).is_dir()


def test_an_older_format_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / MARKER).write_text(json.dumps({"format": 1, "files": {}}))
    assert read_manifest(tmp_path) is None


def test_digest(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    expected: tuple[Any, ...] = (3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    assert digest(tmp_path / "a") == expected


def test_no_whole_checkpoint_at_all_is_refused(folder: Path) -> None:
    """Beginning anew would cost the log, and the weights that somebody may still save."""
    checkpoints = Checkpoints(folder, 2, ALONE)
    for step in (1, 2):
        checkpoints.begin(step, {}, part(), nothing)
    checkpoints.close()
    for step in (1, 2):
        (folder / name_of(step) / MARKER).unlink()
    with pytest.raises(ValueError, match=r"none of the 2 checkpoints is whole.*move the folder away"):
        Checkpoints(folder, 2, ALONE).open()
    assert len(list(folder.glob("step-*"))) == 2


def test_new_checkpoints_outlive_damaged_newer_ones(folder: Path) -> None:
    checkpoints = Checkpoints(folder, 1, ALONE)
    checkpoints.begin(2, {}, part(), nothing)
    checkpoints.begin(6, {}, part(), nothing, keep=[2])
    checkpoints.close()
    (folder / name_of(6) / "rank-00000.pt").unlink()
    again = Checkpoints(folder, 1, ALONE)
    found = again.open()
    assert found is not None
    assert found[0].name == name_of(2)
    again.begin(3, {}, part(), nothing)
    assert sorted(p.name for p in folder.iterdir()) == [f".damaged-{name_of(6)}", name_of(3)]
    again.close()


def test_the_best_stays_until_a_better_one_is_there(folder: Path, tmp_path: Path) -> None:
    def broken(target: Path) -> None:
        raise OSError(28, "No space left on device")

    checkpoints = Checkpoints(folder, 1, ALONE, copies=Store(tmp_path / "store"))
    checkpoints.begin(1, {}, part(), nothing, keep=[1])
    checkpoints.begin(2, {}, part(), broken, keep=[2])  # the new best, which is never written
    checkpoints.begin(3, {}, part(), nothing, keep=[2])
    assert sorted(p.name for p in folder.iterdir()) == [name_of(1), name_of(3)]
    assert checkpoints.whole(2) is None
    assert checkpoints.whole(1) == folder / name_of(1)
    checkpoints.close()
    shutil.rmtree(folder / name_of(3))
    assert checkpoints.whole(3) == folder / name_of(3)  # from the mirror


def test_a_last_save_that_fails_is_an_error_in_the_foreground_too(folder: Path) -> None:
    def broken(target: Path) -> None:
        raise OSError(28, "No space left on device")

    checkpoints = Checkpoints(folder, 2, ALONE, background=False)
    with pytest.raises(ValueError, match="No space left on device"):
        checkpoints.begin(1, {}, part(), broken, last=True)
    checkpoints.close()


def test_a_slow_store_gets_the_newest_and_holds_up_no_pruning(folder: Path, gate: Gate) -> None:
    sent: list[str] = []
    begun = threading.Event()

    class Slow:
        def send(self, source: Path, keep_also: Collection[str] = ()) -> None:
            begun.set()
            assert gate.opened.wait(20)
            sent.append(source.name)

        def newest(self, before: int | None = None) -> tuple[int, str] | None:
            return None

        def fetch(self, name: str, into: Path) -> Path:
            raise AssertionError

    checkpoints = Checkpoints(folder, 1, ALONE, copies=Slow())
    for step in range(1, 6):
        checkpoints.begin(step, {}, part(), nothing)
        assert begun.wait(20)
    assert sorted(p.name for p in folder.iterdir()) == [name_of(1), name_of(5)]
    gate.opened.set()
    checkpoints.close()
    assert sent == [name_of(1), name_of(5)]
