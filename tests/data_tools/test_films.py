"""Films are found in every layout, each once, and what only looks like one is named with the reason."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_tools.films import find, pictures_in, prefixed, read_list


def touch(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(path)
    return path


def sources(root: Path, **options: object) -> list[str]:
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
    assert (film.source, film.kind, film.path, film.masks) == (
        "bear",
        "frames",
        tmp_path / "bear/frames",
        tmp_path / "bear/masks",
    )
    (alone,) = find(tmp_path / "bear").films
    assert (alone.source, alone.masks) == ("bear", tmp_path / "bear/masks")


def test_the_layout_of_davis(tmp_path: Path) -> None:
    picture(tmp_path / "JPEGImages/480p/bear/00000.jpg")
    picture(tmp_path / "Annotations/480p/bear/00000.png")
    (film,) = find(tmp_path).films
    assert film.source == "JPEGImages/480p/bear"
    assert film.masks == tmp_path / "Annotations/480p/bear"


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


def test_a_name_that_is_no_utf8_becomes_printable(tmp_path: Path) -> None:
    touch(Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.mp4")))
    (source,) = sources(tmp_path)
    assert source == "\\xff.mp4"
    source.encode("utf-8")


@pytest.mark.parametrize(
    ("name", "text"),
    [("l.txt", "# a comment\n\na.mp4\nsub/b.mp4\na.mp4\ngone.mp4\nseq\nbare\n"),
     ("l.csv", "\ufeffid,path\n1,a.mp4\n2,sub/b.mp4\n3,a.mp4\n4,gone.mp4\n5,seq\n6,bare\n")],
)  # fmt: skip
def test_lists(tmp_path: Path, name: str, text: str) -> None:
    touch(tmp_path / "a.mp4")
    touch(tmp_path / "sub/b.mp4")
    touch(tmp_path / "unlisted.mp4")
    picture(tmp_path / "seq/frames/0.png")
    (tmp_path / "bare").mkdir()
    (tmp_path / name).write_text(text, encoding="utf-8")
    found = find(tmp_path / name)
    assert [f.source for f in found.films] == ["a.mp4", "seq", "sub/b.mp4"]
    assert {r.source: r.reason for r in found.rejected} == {
        "gone.mp4": "cannot be opened: No such file or directory",
        "bare": "a folder without frames",
    }


def test_a_list_without_paths_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no column 'path'; it has file"):
        read_list(touch(tmp_path / "l.csv", b"file\na.mp4\n"))


def test_no_input_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such input; give a folder"):
        find(tmp_path / "gone")


def test_several_inputs_get_different_names() -> None:
    assert prefixed([Path("x/films")]) == [""]
    assert prefixed([Path("x/films"), Path("y/films"), Path("y/other")]) == ["films/", "films-2/", "other/"]
