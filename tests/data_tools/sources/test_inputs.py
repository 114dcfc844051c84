"""What labels.csv, tables and boxes.csv say reaches the films that they name, whatever their names and wherever they lie."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from data_tools.places import Place, place, write_atomic
from data_tools.schema import Prepare
from data_tools.sources.boxes import Box
from data_tools.sources.films import Found
from data_tools.sources.inputs import Rows, discover, remarks
from data_tools.sources.labels import Annotation
from tests.data_tools.sources.test_films import picture, touch
from tests.data_tools.sources.web import Web, send


def discovered(root: Place | tuple[Place, ...], **more: object) -> tuple[Found, Rows]:
    names = tuple(map(str, root)) if isinstance(root, tuple) else str(root)
    return discover(Prepare(input=names, output="out", attempts=2, **more))  # type: ignore[arg-type]


def sources(found: Found) -> list[str]:
    return [film.source for film in found.films]


def reasons(found: Found) -> dict[str, str]:
    assert len({r.source for r in found.rejected}) == len(found.rejected)
    return {r.source: r.reason for r in found.rejected}


@pytest.mark.parametrize(
    ("name", "text"),
    [("l.txt", "# a comment\n\na.mp4\n./sub/../sub/b.mp4\nsub/b.mp4\n./a.mp4\ngone.mp4\nseq\nbare\nsub/c.png\n"),
     ("l.csv", "\ufeffid,path\n1,a.mp4\n2,sub/b.mp4\n3,a.mp4\n4,gone.mp4\n5,seq\n6,bare\n7,sub/c.png\n8,\n")],
)  # fmt: skip
def test_lists(tmp_path: Path, name: str, text: str) -> None:
    touch(tmp_path / "a.mp4")
    touch(tmp_path / "sub/b.mp4")
    picture(tmp_path / "sub/c.png")
    touch(tmp_path / "unlisted.mp4")
    picture(tmp_path / "seq/frames/0.png")
    (tmp_path / "bare").mkdir()
    (tmp_path / name).write_text(text, encoding="utf-8")
    found, rows = discovered(tmp_path / name)
    assert sources(found) == ["a.mp4", "seq", "sub/b.mp4", "sub/c.png"]
    assert [f.kind for f in found.films] == ["video", "frames", "video", "picture"]
    expected = {"gone.mp4": "cannot be opened: No such file or directory", "bare": "a folder without frames"}
    if name == "l.csv":
        expected["l.csv, line 9"] = "a row without a path"
        assert [row.id for row in rows["a.mp4"]] == ["1", "3"]
    assert reasons(found) == expected


def test_a_hostile_list(tmp_path: Path) -> None:
    """Every entry has an outcome with a reason, none an exception, and none leads where it should not."""
    entries = ["../x.mp4", "zip://a::/etc/passwd", "s3://k:secret@b/x.mp4", "a" * 400 + ".mp4", "a" * 1200, "a\0.mp4"]
    entries += [
        "https://u:secret@h/x.mp4",
        "https://h/x.mp4?secret=1",
        "https://h/x.mp4?secret=2",
        "/dev/zero",
        "/proc",
    ]
    with (tmp_path / "l.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path"], *([entry] for entry in entries)])
    found, _ = discovered(tmp_path / "l.csv")
    assert len(found.films) == 3
    assert len(reasons(found)) == len(entries) - 3
    assert all(len(r.source) < 500 and r.reason for r in found.rejected)
    assert not any("secret" in name for name in (*sources(found), *reasons(found), *reasons(found).values()))
    assert reasons(found)["/dev/zero"] == "not a regular file"


def test_a_list_from_elsewhere(web: Web, tmp_path: Path) -> None:
    touch(tmp_path / "a.mp4")
    web.files["/films/l.txt"] = (
        f"a.mp4\n{tmp_path}/a.mp4\nfile://{tmp_path}/a.mp4\nhttp://other/b\ns3://b/c.mp4\n".encode()
    )
    web.files["/films/labels.csv"] = b"path,action\na.mp4,run\nunlisted.mp4,walk\nhttp://other/b,rest\n"
    web.files["/films/boxes.csv"] = b"path,frame,x0,y0,x1,y1\na.mp4,0,1,2,3,4\n"
    found, rows = discovered(place(f"{web.url}/films/l.txt?signature=1"))
    assert sources(found) == ["a.mp4", "http://other/b", "s3://b/c.mp4"]
    assert str(found.films[0].path) == f"{web.url}/films/a.mp4"
    assert found.films[0].boxes == (Box(0, 1.0, 2.0, 3.0, 4.0),)
    assert set(reasons(found).values()) == {"a list that is not on this machine may not name its files; give a URL"}
    assert len(found.rejected) == 2
    assert [row.labels for rows_ in rows.values() for row in rows_] == [{"action": "run"}, {"action": "rest"}]
    with pytest.raises(ValueError, match=rf"{web.url}/gone\.txt: no such input: HTTP 404 Not Found"):
        discovered(place(f"{web.url}/gone.txt"))
    web.answers["/down.txt"] = [send(b"", length=5)]
    with pytest.raises(ValueError, match=r"down\.txt: cannot be fetched after 2 attempts"):
        discovered(place(f"{web.url}/down.txt"))


def test_a_table_of_urls(bucket: str) -> None:
    """As one would cut out of YFCC100M's, in a store."""
    text = "Photo/video identifier\tUser nickname\tTitle\tDownload URL\tLicense name\n7\tann\tx\thttps://h/a.mp4\tCC BY\n8\t\ty\tb.mp4\t\n"
    columns = {"path": "Download URL", "id": "Photo/video identifier", "licence": "License name"}
    write_atomic(place(bucket) / "meta/l.tsv", text.encode())
    found, rows = discovered(place(f"{bucket}/meta/l.tsv"), columns=columns, labels={"title": "Title"})
    assert sources(found) == ["b.mp4", "https://h/a.mp4"]
    assert str(found.films[0].path) == f"{bucket}/meta/b.mp4"
    assert rows["https://h/a.mp4"] == (Annotation(licence="CC BY", id="7", labels={"title": "x"}),)
    with pytest.raises(ValueError, match="columns is for tables"):
        discovered(place(bucket) / "meta", columns=columns)


def test_labels_and_boxes_beside_films(tmp_path: Path, memory: Place) -> None:
    """In a folder on a disk and in a store: they are no films, and what they name must be one."""
    files = {
        "a.mp4": b"film",
        "b/c.mp4": b"film",
        "labels.csv": b"path,action,id\nb\\c.mp4,run,7\ngone.mp4,walk,\n",
        "boxes.csv": b"path,frame,x0,y0,x1,y1\na.mp4,0,1,2,3,4\ngone.mp4,0,1,2,3,4\nlost.mp4,0,1,2,3,4\n",
    }
    for name, content in files.items():
        touch(tmp_path / name, content)
        write_atomic(memory / name, content)
    for root in (tmp_path, memory):
        found, rows = discovered(root)
        assert rows == {"a.mp4": (), "b/c.mp4": (Annotation(labels={"action": "run"}, id="7"),)}
        assert found.films[0].boxes == (Box(0, 1.0, 2.0, 3.0, 4.0),)
        assert found.ignored == 0
        assert reasons(found) == {
            "gone.mp4": "labels.csv names it, but there is no film of that name",
            "lost.mp4": "boxes.csv names it, but there is no film of that name",
        }
        assert list(remarks(found, rows)) == [
            "1 of 2 films have no row in labels.csv or a layout: they carry no labels"
        ]
    found, rows = discovered(memory / "b/c.mp4", labels_file=None, boxes_file=None)
    assert (sources(found), rows) == (["c.mp4"], {"c.mp4": ()})


def test_a_list_has_the_labels_beside_it(tmp_path: Path) -> None:
    touch(tmp_path / "films/a.mp4")
    touch(tmp_path / "films/b.mp4")
    (tmp_path / "labels.csv").write_text("path,action\nfilms/a.mp4,walk\nfilms/b.mp4,run\n")
    (tmp_path / "some.txt").write_text("./films/a.mp4\n")
    found, rows = discovered(tmp_path / "some.txt")
    assert rows == {"films/a.mp4": (Annotation(labels={"action": "walk"}),)}
    assert not found.rejected, "what the list does not name is no loss"


def test_odd_names_of_labelled_films(tmp_path: Path) -> None:
    names = ["back\\slash.mp4", "line\u2028end.mp4", "näme #1 'x'.mp4", "two\nlines.mp4"]
    for name in names:
        touch(tmp_path / name)
    with (tmp_path / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["path", "action"], *([name, "run"] for name in names)])
    found, rows = discovered(tmp_path)
    assert sorted(sources(found)) == sorted(names)
    assert not found.rejected
    assert all(own[0].labels == {"action": "run"} for own in rows.values())


@pytest.mark.parametrize("where", ["disk", "memory"])
def test_true_masks_that_labels_name(where: str, tmp_path: Path, memory: Place) -> None:
    root = tmp_path if where == "disk" else memory
    for name in ("a.mp4", "b.mp4", "seq/0.png", "truth/a/0.png", "truth/seq/0.png"):
        touch(tmp_path / name)
        if where == "memory":
            write_atomic(memory / name, (tmp_path / name).read_bytes())
    text = "path,truth\na.mp4,truth/a\nb.mp4,../elsewhere\nseq,./truth/../truth/seq\n"
    touch(tmp_path / "labels.csv", text.encode())
    write_atomic(memory / "labels.csv", text.encode())
    touch(tmp_path / "boxes.csv", b"path,frame,x0,y0,x1,y1\na.mp4,0,1,2,3,4\n")
    write_atomic(memory / "boxes.csv", (tmp_path / "boxes.csv").read_bytes())
    found, rows = discovered(root)
    assert [(f.source, f.masks, f.boxes) for f in found.films] == [
        ("a.mp4", root / "truth/a", ()),
        ("seq", root / "truth/seq", ()),
    ]
    assert reasons(found)["b.mp4"].startswith(
        "its folder of true masks, ../elsewhere: a relative path out of the folder"
    )
    assert "1 films have both pictures of true masks and boxes: the pictures are taken" in remarks(found, rows)


def test_true_masks_that_are_not_there(tmp_path: Path) -> None:
    touch(tmp_path / "a.mp4")
    touch(tmp_path / "labels.csv", b"path,truth\na.mp4,truth/a\n")
    assert reasons(discovered(tmp_path)[0]) == {"a.mp4": "its folder of true masks does not exist: truth/a"}


def test_several_inputs(tmp_path: Path, memory: Place) -> None:
    for name in ("one/a.mp4", "x/one/a.mp4", "l/a.mp4"):
        touch(tmp_path / name)
    touch(tmp_path / "one/labels.csv", b"path,action\na.mp4,run\n")
    touch(tmp_path / "l/l.txt", b"a.mp4\nhttps://h/b.mp4\n../up.mp4\n")
    write_atomic(memory / "a.mp4", b"film")
    found, rows = discovered((tmp_path / "one", tmp_path / "x/one", tmp_path / "l/l.txt", memory))
    names = ["one/a.mp4", "one-2/a.mp4", "l.txt/a.mp4", "l.txt/https://h/b.mp4", f"{memory.name}/a.mp4"]
    assert sources(found) == names
    assert list(rows) == names
    assert rows["one/a.mp4"][0].labels == {"action": "run"}
    assert list(reasons(found)) == ["l.txt/l.txt, line 3: ../up.mp4"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"labels": {"action": "x"}}, "no input has a labels.csv"),
        ({"labels_file": "more.csv"}, "no input has a more.csv"),
        ({"boxes_file": "more.csv"}, "no input has a more.csv, and the config asks for boxes"),
        ({"columns": {"path": "x"}}, "columns is for tables"),
    ],
)
def test_what_the_config_names_must_be_there(more: dict[str, object], message: str, tmp_path: Path) -> None:
    touch(tmp_path / "a.mp4")
    with pytest.raises(ValueError, match=message):
        discovered(tmp_path, **more)


def test_an_input_that_is_not_there(tmp_path: Path) -> None:
    for name in ("gone", "gone.txt", "gone.parquet"):
        with pytest.raises(ValueError, match=f"{name}: no such input; give a folder"):
            discovered(tmp_path / name)


def test_a_data_set_among_the_films_is_no_film(tmp_path: Path) -> None:
    touch(tmp_path / "films/a.mp4")
    picture(tmp_path / "films/out/inspect.png")
    found, _ = discover(Prepare(input=str(tmp_path / "films"), output=str(tmp_path / "films/out")))
    assert sources(found) == ["a.mp4"]
