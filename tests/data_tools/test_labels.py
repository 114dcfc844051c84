"""labels.csv: reserved columns keep their meaning, every other one is a label, and a clip takes the row that covers most of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_tools.labels import Annotation, annotation_of, read_labels


def csv(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "labels.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_columns(tmp_path: Path) -> None:
    path = csv(
        tmp_path,
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
    path = csv(tmp_path, "path,label,noise\na.mp4,run,7\n")
    assert read_labels(path, {"action": "label"})["a.mp4"][0].labels == {"action": "run"}
    with pytest.raises(ValueError, match="no column 'gone', which `labels` names"):
        read_labels(path, {"action": "gone"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na,b\n", "no column 'path'; it has file, label"),
        ("", "no column 'path'; it has none"),
        ("path,start,stop\na.mp4,5,5\n", "line 2: start '5' and stop '5' are no frame span"),
        ("path,start,stop\na.mp4,0,9\nb.mp4,-1,9\n", "line 3: start '-1'"),
        ("path,start,stop\na.mp4,3,\n", "line 2: give both start and stop"),
    ],
)
def test_bad_files_are_refused_with_the_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_labels(csv(tmp_path, text))


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(b"path\n\xff\xfe")
    with pytest.raises(ValueError, match="cannot be read"):
        read_labels(path)


def test_a_clip_takes_the_row_that_covers_most_of_it() -> None:
    rows = tuple(
        Annotation(span, "g", "test", labels={"n": str(i)}) for i, span in enumerate([(0, 10), (10, 30), (40, 50)])
    )
    assert annotation_of(rows, 0, 10).labels == {"n": "0"}
    assert annotation_of(rows, 4, 15).labels == {"n": "0"}
    assert annotation_of(rows, 4, 17).labels == {"n": "1"}
    assert annotation_of(rows, 5, 15).labels == {"n": "0"}, "the first of equals"
    outside = annotation_of(rows, 30, 40)
    assert outside.labels == {}
    assert (outside.group, outside.split) == ("g", "test")
    assert annotation_of((), 0, 5) == Annotation()
    assert annotation_of((Annotation(labels={"n": "all"}),), 7, 9).labels == {"n": "all"}
