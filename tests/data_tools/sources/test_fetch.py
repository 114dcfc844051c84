"""Films come to this machine under their own names, whole, masks included; a stamp changes when their content does."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_tools.places import Place, place, write_atomic
from data_tools.sources.download import Absent
from data_tools.sources.fetch import fetch, fetch_film, fetch_tree, stamp
from data_tools.sources.films import Film, find
from data_tools.videos import Unusable
from tests.data_tools.sources.web import Web, send, status


def beat(_: int) -> None:
    pass


def picture(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def sequence(root: Place) -> Place:
    """A folder of frames with masks, in a store."""
    for i in range(3):
        write_atomic(root / f"bear/frames/{i}.png", picture(i))
        write_atomic(root / f"bear/masks/{i}.png", picture(100 + i))
    write_atomic(root / "bear/frames/notes.txt", b"no frame")
    return root


def test_what_is_here_stays_where_it_is(tmp_path: Path) -> None:
    film = Film("a", tmp_path / "a", "frames", tmp_path / "b")
    assert fetch(tmp_path / "a.mp4", tmp_path, beat) == tmp_path / "a.mp4"
    assert fetch_film(film, tmp_path, beat) == film
    assert not list(tmp_path.iterdir())


def test_a_file_keeps_its_name_and_its_folders(web: Web, tmp_path: Path) -> None:
    """As the hash of a film with masks counts names, it must not matter where the film lies."""
    web.files["/films/a.mp4"] = b"film"
    path = fetch(place(f"{web.url}/films/a.mp4?signature=1/2"), tmp_path, beat)
    assert path.read_bytes() == b"film"
    assert (path.parent.name, path.name) == ("films", "a.mp4")
    assert path.is_relative_to(tmp_path)
    assert fetch(place(f"{web.url}/films/a.mp4?signature=1"), tmp_path, beat) != path, "two never meet"


@pytest.mark.parametrize("name", ["a" * 300 + ".mp4", "..", "é" * 150 + ".mp4"])
def test_names_that_no_disk_takes(name: str, web: Web, tmp_path: Path) -> None:
    web.otherwise = send(b"film")
    path = fetch(place(f"{web.url}/x/{name}"), tmp_path, beat)
    assert path.read_bytes() == b"film"
    assert path.suffix == Path(name).suffix
    assert path.resolve().is_relative_to(tmp_path)
    assert path.parent.name == "x"


def test_frames_and_masks(memory: Place, tmp_path: Path) -> None:
    (film,) = find(sequence(memory)).films
    here = fetch_film(film, tmp_path, beat)
    assert isinstance(here.path, Path)
    assert isinstance(here.masks, Path)
    assert (here.path.name, here.masks.name, here.source) == ("frames", "masks", "bear")
    assert sorted(p.name for p in here.path.iterdir()) == ["0.png", "1.png", "2.png"]
    assert (here.masks / "2.png").read_bytes() == picture(102)


def test_nothing_stays_of_what_failed(memory: Place, web: Web, tmp_path: Path) -> None:
    (film,) = find(sequence(memory)).films
    with pytest.raises(Unusable, match="max_film_bytes"):
        fetch_tree(film.path, tmp_path, beat, max_bytes=2 * len(picture(0)))
    with pytest.raises(Absent, match="no pictures in the folder gone"):
        fetch_tree(memory / "gone", tmp_path, beat)
    web.answers["/a.mp4"] = [status(404)]
    with pytest.raises(Absent, match="HTTP 404"):
        fetch(place(f"{web.url}/a.mp4"), tmp_path, beat)
    assert not list(tmp_path.iterdir())
    with pytest.raises(Absent, match="its true masks: no pictures in the folder gone"):
        fetch_film(replace(film, masks=memory / "gone"), tmp_path, beat)


def test_s3(bucket: str, tmp_path: Path) -> None:
    root = place(bucket)
    write_atomic(root / "films/a.mp4", b"film")
    films = {film.source: film for film in find(sequence(root)).films}
    assert fetch_film(films["films/a.mp4"], tmp_path, beat).path.read_bytes() == b"film"
    assert len(list(fetch_film(films["bear"], tmp_path, beat).path.iterdir())) == 3
    before = {source: stamp(film) for source, film in films.items()}
    assert all(before.values())
    assert before == {film.source: stamp(film) for film in find(root).films}
    assert stamp(replace(films["films/a.mp4"], version="")) == before["films/a.mp4"], "asked for, it is the same"
    write_atomic(root / "films/a.mp4", b"FILM")
    write_atomic(root / "bear/masks/1.png", picture(7))
    after = {film.source: stamp(film) for film in find(root).films}
    assert all(after[source] not in ("", before[source]) for source in before)


def test_stamps_of_local_films(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"film")
    film = Film("a", path, "video")
    first = stamp(film)
    os.utime(path, ns=(1, 1))
    second = stamp(film)
    path.write_bytes(b"longer film")
    os.utime(path, ns=(1, 1))
    assert len({first, second, stamp(film), ""}) == 4
    path.unlink()
    assert stamp(film) == ""
    for name in ("frames/0.png", "masks/0.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(picture(0))
    frames = Film("a", tmp_path / "frames", "frames", tmp_path / "masks")
    first = stamp(frames)
    (tmp_path / "masks/0.png").rename(tmp_path / "masks/1.png")
    second = stamp(frames)
    (tmp_path / "frames/0.png").rename(tmp_path / "frames/1.png")
    assert len({first, second, stamp(frames), ""}) == 4
    (tmp_path / "masks/1.png").unlink()
    assert stamp(frames) == "", "masks that are not there are not known"


def test_stamps_of_web_films(web: Web) -> None:
    film = Film("a", place(f"{web.url}/a.mp4"), "video")
    web.answers["/a.mp4"] = [send(b"film", ETag='"1"')]
    assert stamp(film) == "4-1"
    assert web.asked == ["HEAD /a.mp4"]
    web.answers["/a.mp4"] = [send(b"film", **{"Last-Modified": "today"})]
    assert stamp(film) == "4-today"
    for nothing_known in (send(b"film"), status(404), status(500)):
        web.answers["/a.mp4"] = [nothing_known]
        assert stamp(film) == ""
