"""Places: the same words for a disk and for object storage; whole files or none; networks that fail for a moment."""

from __future__ import annotations

import errno
import hashlib
import uuid
from pathlib import Path

import pytest
from upath import UPath

from data_tools import places
from data_tools.places import (
    Place,
    again,
    atomic,
    is_local,
    listed,
    place,
    read_bytes,
    read_range,
    remove,
    sha256_of,
    size_of,
    write_atomic,
)


@pytest.fixture(params=["disk", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return tmp_path if request.param == "disk" else place(f"memory://{uuid.uuid4().hex}")


def test_names_and_urls() -> None:
    assert place("a/b") == Path("a/b")
    assert place("file:///a/b") == Path("/a/b")
    assert is_local(place("/a"))
    there = place("memory://bucket/a")
    assert isinstance(there, UPath)
    assert not is_local(there)
    assert str(there / "b") == "memory://bucket/a/b"
    with pytest.raises(ValueError, match=r"^nosuch://x: "):
        place("nosuch://x")


def test_what_is_written_is_read(folder: Place) -> None:
    write_atomic(folder / "a", b"0123456789")
    assert read_bytes(folder / "a") == b"0123456789"
    assert read_range(folder / "a", 3, 4) == b"3456"
    assert read_range(folder / "a", 8, 40) == b"89"
    assert size_of(folder / "a") == 10
    assert size_of(folder / "b") is None
    with atomic(folder / "b") as file:
        file.write(b"x" * 100)
    assert listed(folder) == ["a", "b"]
    assert sha256_of(folder / "b") == hashlib.sha256(b"x" * 100).hexdigest()
    remove(folder / "a")
    remove(folder / "a")
    assert listed(folder) == ["b"]
    assert listed(folder / "nothing") == []
    with pytest.raises(FileNotFoundError):
        read_bytes(folder / "a")


def test_a_file_is_whole_or_what_it_was(folder: Place) -> None:
    write_atomic(folder / "a", b"before")

    def interrupted() -> None:
        with atomic(folder / "a") as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert read_bytes(folder / "a") == b"before"
    assert listed(folder) == ["a"]


@pytest.mark.parametrize(
    ("error", "calls"),
    [
        (ConnectionResetError("reset\nby peer"), 3),
        (FileNotFoundError("gone"), 1),
        (OSError(errno.ENOSPC, "No space left on device"), 1),
    ],
)
def test_what_may_pass_is_tried_again(error: Exception, calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places.time, "sleep", lambda _: None)
    made = []

    def call() -> None:
        made.append(1)
        raise error

    with pytest.raises(OSError, match=r"^cannot read it") as caught:
        again("cannot read it", call, attempts=3)
    assert len(made) == calls
    assert "\n" not in str(caught.value)
    assert caught.value.errno == getattr(error, "errno", None)
    assert isinstance(caught.value, FileNotFoundError) == isinstance(error, FileNotFoundError)
