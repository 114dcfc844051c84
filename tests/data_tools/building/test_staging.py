"""Staging: what stands there is whole; a torn clip or outcome is none, and is made again."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from data_tools.building.identities import IDENTITIES, Identities
from data_tools.building.ledger import Outcome
from data_tools.building.staging import Staging
from data_tools.places import Place, listed, place, write_atomic
from data_tools.shards import to_stretch
from tests.datasets import make_sample


@pytest.fixture(params=["disk", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return tmp_path / "staging" if request.param == "disk" else place(f"memory://{uuid.uuid4().hex}/staging")


def stretch(number: int) -> bytes:
    sample = make_sample(number, 4, (128, 144), (), "vp9", False, False, 0, 1)
    return to_stretch(sample.key, sample.members())


def test_clips_come_back_in_order(folder: Place) -> None:
    staging = Staging(folder)
    content = {start: stretch(i) for i, start in enumerate((64, 0, 1_000_000))}
    for start, data in content.items():
        staging.put_clip("f" * 32, start, data)
    files = staging.clips("f" * 32)
    assert list(files) == [0, 64, 1_000_000]
    for start, name in files.items():
        assert staging.get_clip("f" * 32, name) == content[start]
        assert staging.metadata("f" * 32, name).num_frames == 4
    staging.forget("f" * 32)
    assert staging.clips("f" * 32) == {}


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"\0" * len(data), lambda data: b""])
def test_a_torn_clip_is_none(folder: Place, damage: object) -> None:
    staging = Staging(folder)
    staging.put_clip("film", 0, stretch(0))
    (name,) = staging.clips("film").values()
    write_atomic(folder / "films/fi/film" / name, damage(stretch(0)))  # type: ignore[operator]
    assert staging.get_clip("film", name) is None


def test_a_torn_outcome_is_none(folder: Place) -> None:
    staging = Staging(folder)
    kept = Outcome(source="a", film="1", job="2", status="used", sizes=(1, 2))
    staging.put_outcome("good", kept)
    staging.put_outcome("torn", kept)
    write_atomic(folder / "outcomes/torn.json", b'{"source": "a", "fi')
    assert staging.outcomes() == {"good": kept}
    staging.forget_run()
    assert staging.outcomes() == {}


def test_what_was_read_is_known_until_it_changes(folder: Place) -> None:
    root = folder.parent
    write_atomic_folder(folder)
    first = Identities(root, folder)
    first.learn("a", "10-1", "film a")
    first.learn("b", "", "film b")  # a server that tells nothing: read again every time
    second = Identities(root, folder)
    if isinstance(folder, Path):  # object stores cannot append: they are told at the end
        assert second.film("a", "10-1") == "film a", "the process may die at any moment"
        with (folder / "identities.jsonl").open("ab") as file:
            file.write(b'{"source": "c", "sta')
        second = Identities(root, folder)
    second.learn("a", "10-1", "film a")
    second.learn("d", "12-1", "film d")
    second.keep()
    third = Identities(root, folder)
    assert IDENTITIES in listed(root)
    assert third.film("a", "10-1") == "film a"
    assert third.film("a", "11-2") is None
    assert third.film("b", "") is None
    assert third.film("d", "12-1") == "film d"


def write_atomic_folder(folder: Place) -> None:
    if isinstance(folder, Path):
        folder.mkdir(parents=True)
