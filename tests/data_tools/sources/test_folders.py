"""A folder in a store gives the same films as a copy of it on a disk."""

from __future__ import annotations

import io
import uuid
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_tools.places import Place, place
from data_tools.sources.films import Found, film_at, find
from tests.object_store import new_bucket

FILES = (
    "b.mp4",
    "no-ending",
    "a/z.AVI",
    "a/c/d e#?%20+é.webm",
    "a/notes.txt",
    "a/empty.mp4",
    ".hidden/e.mp4",
    "a/.f.mp4",
    "bear/frames/2.png",
    "bear/frames/10.png",
    "bear/frames/.1.png",
    "bear/masks/2.png",
    "cat/0.jpg",
    "dog/frames/0.png",
    "folder.mp4/notes.txt",
    "deep.mp4/er/x.mov",
    "DAVIS/JPEGImages/480p/cow/0.jpg",
    "DAVIS/Annotations/480p/cow/0.png",
    "DAVIS/Annotations/480p/alone/0.png",
)


@pytest.fixture(scope="module")
def picture() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def fill(root: Place, picture: bytes) -> Place:
    for name in FILES:
        content = b"" if "empty" in name else picture if name[-3:] in ("png", "jpg") else b"film"
        if isinstance(root, Path):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
        else:
            root.fs.pipe_file(f"{root.path.rstrip('/')}/{name}", content)
    return root


def summary(found: Found, root: Place) -> list[object]:
    base = str(root).rstrip("/")
    films = [
        (f.source, f.kind, str(f.path).removeprefix(base), str(f.masks).removeprefix(base) if f.masks else None)
        for f in found.films
    ]
    return [films, [(r.source, r.reason) for r in found.rejected], found.ignored]


@pytest.fixture(scope="module", params=["memory", "s3"])
def store(request: pytest.FixtureRequest, s3: None, picture: bytes) -> Place:
    return fill(place(f"s3://{new_bucket()}/pre" if request.param == "s3" else f"memory://{uuid.uuid4().hex}"), picture)


@pytest.mark.parametrize(
    ("below", "pictures"),
    [(name, "frames") for name in ("", "bear", "a", "DAVIS", "DAVIS/JPEGImages/480p", "dog/frames", "b.mp4", "cat")]
    + [("", "single")],
)
def test_the_same_films(below: str, pictures: str, store: Place, tmp_path: Path, picture: bytes) -> None:
    copy = fill(tmp_path / store.name, picture)
    found = find(store / below if below else store, pictures=pictures)  # type: ignore[arg-type]
    assert summary(found, store) == summary(find(copy / below, pictures=pictures), copy)  # type: ignore[arg-type]
    assert found.films
    assert all(f.version for f in found.films if f.kind != "frames")


def test_a_whole_bucket(bucket: str, tmp_path: Path, picture: bytes) -> None:
    root = fill(place(bucket), picture)
    root.fs.pipe_file(f"{root.path}made/", b"")  # as consoles make folders
    assert summary(find(root), root) == summary(find(fill(tmp_path, picture)), tmp_path)


def test_truth_folders_are_no_films(store: Place) -> None:
    sources = [f.source for f in find(store, truth=frozenset({(store / "a/../cat").resolve()})).films]
    assert "cat" not in sources
    assert "bear" in sources


def test_a_name_that_fsspec_takes_for_a_chain(bucket: str) -> None:
    root = place(bucket)
    root.fs.pipe_file(f"{root.path}a::file:///etc/b.mp4", b"x")
    assert [(r.source, r.reason) for r in find(root).rejected] == [("a::file:///etc/b.mp4", "'::' in its name")]


def test_entries_of_lists(store: Place, tmp_path: Path, picture: bytes) -> None:
    """What has the ending of a film is not asked for; the rest is."""
    here = fill(tmp_path / "pre", picture)
    for name in ("bear", "bear/frames", "cat", "DAVIS/JPEGImages/480p/cow", "no-ending", "DAVIS"):
        ending = Path(name).suffix
        there, copy = film_at(store / name, name, ending), film_at(here / name, name, ending)
        assert summary(_found(there), store) == summary(_found(copy), here)
    assert _found(film_at(store / "gone.mp4", "gone.mp4", ".mp4")).films
    assert _found(film_at(store / "gone", "gone", "")).rejected[0].reason == "no such file in the store"


def _found(one: object) -> Found:
    found = Found([], [])
    found.add(one)  # type: ignore[arg-type]
    return found
