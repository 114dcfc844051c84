"""Films are found in every layout, each once, and what only looks like one is named with the reason."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_tools.places import Place, place
from data_tools.sources.boxes import Box
from data_tools.sources.films import Film, Rejected, film_at, find, pictures_in, prefixed


def touch(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(path)
    return path


def sources(root: Place, **options: object) -> list[str]:
    return [f.source for f in find(root, **options).films]  # type: ignore[arg-type]


def test_files_at_any_depth_are_found_in_order(tmp_path: Path) -> None:
    for name in ("b.mp4", "a/z.AVI", "a/c/d.webm", "a/notes.txt", ".hidden/e.mp4", ".f.mp4"):
        touch(tmp_path / name)
    found = find(tmp_path)
    assert [f.source for f in found.films] == ["a/c/d.webm", "a/z.AVI", "b.mp4"]
    assert found.ignored == 1


def test_frames_and_masks_beside_them(tmp_path: Path) -> None:
    picture(tmp_path / "bear/frames/0.png")
    picture(tmp_path / "bear/masks/0.png")
    (film,) = find(tmp_path).films
    assert film == Film("bear", tmp_path / "bear/frames", "frames", tmp_path / "bear/masks")
    (alone,) = find(tmp_path / "bear").films
    assert (alone.source, alone.masks) == ("bear", tmp_path / "bear/masks")


def test_the_layout_of_davis(tmp_path: Path) -> None:
    picture(tmp_path / "JPEGImages/480p/bear/00000.jpg")
    picture(tmp_path / "Annotations/480p/bear/00000.png")
    (film,) = find(tmp_path).films
    assert film.source == "JPEGImages/480p/bear"
    assert film.masks == tmp_path / "Annotations/480p/bear"
    (film,) = find(tmp_path / "JPEGImages/480p").films
    assert (film.source, film.masks) == ("bear", tmp_path / "Annotations/480p/bear")


def test_truth_folders_are_no_films(tmp_path: Path) -> None:
    picture(tmp_path / "shots/1/0.png")
    picture(tmp_path / "truth/1/0.png")
    assert sources(tmp_path, truth=frozenset({tmp_path / "truth/1"})) == ["shots/1"]


def test_single_pictures(tmp_path: Path) -> None:
    for i in range(3):
        picture(tmp_path / f"{i}.png")
    assert sources(tmp_path, pictures="single") == ["0.png", "1.png", "2.png"]
    assert [f.kind for f in find(tmp_path).films] == ["frames"]


def test_frames_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    names = ["1.jpg", "2.jpg", "10.jpg", "frame9.jpg", "frame10.jpg"]
    for name in reversed(names):
        picture(tmp_path / name)
    touch(tmp_path / ".3.jpg")
    assert [p.name for p in pictures_in(tmp_path)] == names


def test_no_two_films_have_one_name(tmp_path: Path) -> None:
    picture(tmp_path / "bear/0.png")
    picture(tmp_path / "bear/frames/0.png")
    odd = os.fsdecode(b"\xff.mp4")
    touch(tmp_path / odd)
    touch(tmp_path / "\\xff.mp4")
    assert sources(tmp_path) == ["\\xff.mp4", "\\xff.mp4~2", "bear", "bear~2"]


def test_loops_of_links_end(tmp_path: Path) -> None:
    touch(tmp_path / "a/b.mp4")
    (tmp_path / "a/back").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path / "a")
    assert len(find(tmp_path).films) == 1


def test_what_only_looks_like_a_film_is_named(tmp_path: Path) -> None:
    touch(tmp_path / "empty.mp4", b"")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "nothing.mp4").symlink_to(tmp_path / "gone")
    os.mkfifo(tmp_path / "pipe.mp4")
    found = find(tmp_path)
    assert not found.films
    assert {r.source: r.reason for r in found.rejected} == {
        "empty.mp4": "the file is empty (0 bytes)",
        "folder.mp4": "a folder with the name of a film",
        "nothing.mp4": "a link to nothing",
        "pipe.mp4": "not a regular file",
    }


ODD = [b"-rf.mp4", b"a\nb.mp4", b"'\"`$(x).mp4", b"#%20?*.mp4", b" .mp4", b"\xff\xfe.mp4", b"x" * 250 + b".mp4"]
ODD += ["🎬é\u2028.mp4".encode()]


def test_odd_names(tmp_path: Path) -> None:
    for name in ODD:
        touch(Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)))
    films = find(tmp_path).films
    assert len(films) == len(ODD)
    for film in films:
        film.source.encode("utf-8")
        assert film.path.read_bytes() == b"x"
    assert {f.source for f in films} >= {"-rf.mp4", "a\nb.mp4", "\\xff\\xfe.mp4", "🎬é\u2028.mp4"}


@pytest.mark.parametrize("name", ["a" * 300 + ".mp4", "a.mp4/b.mp4", "gone.mp4"])
def test_an_entry_that_no_disk_holds(name: str, tmp_path: Path) -> None:
    touch(tmp_path / "a.mp4")
    found = film_at(tmp_path / name, "x", ".mp4")
    assert isinstance(found, Rejected)
    assert found.reason.startswith("cannot be opened: ")


def test_no_input_says_what_to_give(tmp_path: Path, bucket: str) -> None:
    for root in (tmp_path / "gone", place(f"{bucket}/gone"), place("s3://no-such-bucket")):
        with pytest.raises(ValueError, match=r"(gone|bucket)/?: no such input; give a folder"):
            find(root)


def test_a_web_server_has_no_folders() -> None:
    with pytest.raises(ValueError, match=r"^https://host/films/: a web server's folders cannot be listed; give a list"):
        find(place("https://user:pw@host/films/"))


def test_a_film_on_a_web_server() -> None:
    (film,) = find(place("https://host/films/A.png?signature=1")).films
    assert film.kind == "picture"
    assert film.source.startswith("A.png~")
    assert str(film.path) == "https://host/films/A.png?signature=1"


def test_films_travel_to_other_processes() -> None:
    for there in (Path("/a/b.mp4"), place("https://host/b.mp4?x=1"), place("s3://bucket/b.mp4")):
        film = Film("b", there, "video", boxes=(Box(1, 0.0, 0.0, 2.0, 2.0),))
        assert pickle.loads(pickle.dumps(film)) == film


def test_several_inputs_get_different_names() -> None:
    assert prefixed([Path("x/films")]) == [""]
    assert prefixed([Path("x/films"), Path("y/films"), Path("y/other")]) == ["films/", "films-2/", "other/"]
    roots = [place("s3://bucket"), place("s3://other/films/"), place("https://user:pw@host/films?x=1")]
    assert prefixed(roots)[:2] == ["bucket/", "films/"]
    assert prefixed(roots)[2].startswith("films~")
