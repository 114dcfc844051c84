"""Lists and tables: columns mean what they are called or what the config says; what cannot be read is told with its line."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_tools.places import Place, write_atomic
from data_tools.sources import tables
from data_tools.sources.labels import Annotation
from data_tools.sources.tables import Row, read_labels, read_list

YFCC = {
    "path": "Download URL",
    "id": "Photo/video identifier",
    "licence": "License name",
    "attribution": "User nickname",
}
TEXT = """\
Photo/video identifier\tUser nickname\tTitle\tDownload URL\tLicense name
7\tann\t"quoted\thttps://host/a.mp4\tCC BY
8\tbob
9\t\t\thttps://host/b.mp4
"""


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def test_lines_of_a_list(tmp_path: Path) -> None:
    path = write(
        tmp_path, "l.txt", "\ufeff# a comment\r\n\r\n a.mp4 \r\nhttps://host/a.mp4#t=3\nline\u2028end.mp4\na.mp4"
    )
    assert [(row.number, row.path) for row in read_list(path)] == [
        (3, "a.mp4"),
        (4, "https://host/a.mp4#t=3"),
        (5, "line\u2028end.mp4"),
        (6, "a.mp4"),
    ]


def test_a_table_that_is_like_labels_csv(tmp_path: Path) -> None:
    path = write(tmp_path, "l.csv", 'path,id,action,frames\n"a\nb.mp4",7,run,9\n,8,run,\n,,,\nc.mp4,,,\n')
    assert list(read_list(path)) == [
        Row(3, "a\nb.mp4", Annotation(labels={"action": "run"}, id="7")),
        Row(4, ""),
        Row(6, "c.mp4", Annotation()),
    ]


def test_columns_of_another_table(tmp_path: Path, memory: Place) -> None:
    """As YFCC100M has them, in every format, on a disk and elsewhere."""
    rows = [Annotation(licence="CC BY", attribution="ann", id="7"), Annotation(id="9")]
    path = write(tmp_path, "l.tsv", TEXT)
    expected = [Row(2, "https://host/a.mp4", rows[0]), Row(3, ""), Row(4, "https://host/b.mp4", rows[1])]
    assert list(read_list(path, YFCC)) == expected
    write_atomic(memory / "l.tsv", TEXT.encode())
    assert list(read_list(memory / "l.tsv", YFCC)) == expected
    numbered = write(tmp_path, "n.tsv", TEXT.partition("\n")[2])
    numbers = {"path": "4", "id": "1", "licence": "5", "attribution": "2"}
    assert [row[1:] for row in read_list(numbered, numbers)] == [row[1:] for row in expected]
    (labelled, *_) = read_list(numbered, numbers, {"title": "3"})
    assert labelled.annotation is not None
    assert labelled.annotation.labels == {"title": '"quoted'}


def test_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "BATCH", 2)
    table = {
        "path": ["a.mp4", None, "c.mp4"],
        "start": pa.array([0, None, 5]),
        "stop": pa.array([9, None, 8], pa.int8()),
        "split": pa.array(["train", None, "test"]).dictionary_encode(),
        "id": pa.array([b"x", b"y", None], pa.binary()),
        "noise": [{"a": 1}, None, None],
    }
    pq.write_table(pa.table(table), tmp_path / "l.parquet")
    assert list(read_list(tmp_path / "l.parquet")) == [
        Row(1, "a.mp4", Annotation((0, 9), split="train", id="x")),
        Row(2, ""),
        Row(3, "c.mp4", Annotation((5, 8), split="test")),
    ]
    assert [row.path for row in read_list(tmp_path / "l.parquet", {"path": "id"})] == ["x", "y"]


@pytest.mark.parametrize(
    ("name", "text", "columns", "message"),
    [
        ("l.csv", "file\na.mp4\n", None, "l.csv: no column 'path'; it has file"),
        ("l.tsv", "", None, "no column 'path'; it has none"),
        ("l.tsv", TEXT, YFCC | {"path": "Download url"}, r"'Download url', which `columns` names for path.*nearest is 'Download URL'"),
        ("l.csv", TEXT, {"path": "x", "license": "y"}, "columns: no meaning 'license'; it has attribution, .*the nearest is 'licence'"),
        ("l.csv", TEXT, {"id": "x"}, "columns: name the column of `path`"),
        ("l.csv", TEXT, {"path": "0"}, "'0' is no number of a column; without a header they count from 1"),
        ("l.csv", "path,start,stop\na.mp4,0,9\nb.mp4,9,9\n", None, "l.csv, line 3: start '9' and stop '9'"),
        ("l.csv", "path\n" + '"' + "a" * 200_001, None, "cannot be read: field larger than"),
        ("l.txt", "a" * 3_000_000, None, "line 1: longer than"),
        ("l.csv", "path\n" + "a," * 3_000_000, None, "l.csv, line 2: longer than"),
        ("l.tsv", "path\n" + "a\t" * 3_000_000, None, "l.tsv, line 2: longer than"),
        ("l.parquet", "PAR1 not", None, "l.parquet: cannot be read: "),
    ],
)  # fmt: skip
def test_what_cannot_be_read(
    name: str, text: str, columns: dict[str, str] | None, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        list(read_list(write(tmp_path, name, text), columns))
    assert "\n" not in str(caught.value)


def test_numbers_need_numbers(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`labels` names: 'Title' is no number"):
        list(read_list(write(tmp_path, "l.tsv", TEXT), {"path": "4"}, {"title": "Title"}))


def test_columns_of_labels(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "labels.csv",
        "\ufeffpath,start,stop,motion,object,group,split,truth,licence,attribution,frames,width,height,fps,source,duration\n"
        "./a\\b.mp4,0,10,left,,g1,train,m/b,CC0,me,1,2,3,4,5,6\n"
        "a/b.mp4,10,20,right,ball,g1,train,m/b,,,,,,,,\n"
        ",,,,,,,,,,,,,,,\n",
    )
    rows = read_labels(path)
    assert set(rows) == {"a/b.mp4"}
    first, second = rows["a/b.mp4"]
    assert first == Annotation((0, 10), "g1", "train", "m/b", "CC0", "me", {"motion": "left"})
    assert second.labels == {"motion": "right", "object": "ball"}


def test_labels_are_chosen_and_renamed(tmp_path: Path) -> None:
    path = write(tmp_path, "labels.csv", "path,label,noise\na.mp4,run,7\n")
    assert read_labels(path, {"action": "label"})["a.mp4"][0].labels == {"action": "run"}
    with pytest.raises(ValueError, match="no column 'gone', which `labels` names"):
        read_labels(path, {"action": "gone"})


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(b"path\n\xff\xfe")
    with pytest.raises(ValueError, match=r"labels.csv: cannot be read"):
        read_labels(path)
