"""KTH: a row for each run of an action, frames counted from 1 in the list; persons are groups; two splits."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

from data_tools.sources.labels import annotation_of
from tests.data_tools.sources.layouts.laid import facts, films, prepared, said, texts
from tests.films import ledger

LIST = """
This database contains sequences of six classes of actions performed by
25 subjects in four different conditions (see below).

Training:   person11, 12, 13, 14, 15, 16, 17, 18
Validation: person19, 20, 21, 23, 24, 25, 01, 04
Test:       person22, 02, 03, 05, 06, 07, 08, 09, 10 


person01_boxing_d1\t\tframes\t1-95, 96-185, 186-245, 246-360
person01_handclapping_d1\tframes\t1-102, 103-182, 183-260, 261-378
person01_jogging_d1\t\tframes\t1-50, 120-170, 250-300, 362-415
person03_boxing_d4\t\tframes\t1-128, 129-284, 285-406, 407-512
person07_jogging_d4\t\tframes\t1-64, 270-332, 194-264, 490-570
person07_handclapping_d2    \tframes\t1-102, 103-248, 249-368, 369-518
person11_boxing_d4    \t\tframes\t1-106, 107-194, 195-250
person13_handclapping_d3\t*missing*
person16_handwaving_d4\t\tframes\t1-104, 105-206, 207-311, 212-456
person22_walking_d1\t\tframes\t1-10, 23-27, 28-48
"""  # noqa: W291  # lines of the authors' list, but for the last, which is shorter
WALKING, BOXING = "walking/person22_walking_d1_uncomp.avi", "boxing/person11_boxing_d4_uncomp.avi"


def test_prepared_end_to_end(tmp_path: Path) -> None:
    """Runs begin and end where no clip of an uncut film would; what is left out is shorter than a clip may be."""
    root = films(texts(tmp_path / "kth", {"00sequences.txt": LIST}), {WALKING: 80, BOXING: 32})
    rows = prepared(root, tmp_path / "shards", "layout=kth", "max_frames=16", "min_frames=8")
    walking = {"action": "walking", "scene": "d1"}
    assert {(key[0], *row["span"]): facts(row) for key, row in rows.items()} == {
        (WALKING, 0, 10): (walking, "person22", "test"),
        (WALKING, 10, 22): ({}, "person22", "test"),
        (WALKING, 27, 38): (walking, "person22", "test"),  # behind the five frames of a run that is too short
        (WALKING, 38, 48): (walking, "person22", "test"),
        (WALKING, 48, 64): ({}, "person22", "test"),
        (WALKING, 64, 80): ({}, "person22", "test"),
        (BOXING, 0, 16): ({"action": "boxing", "scene": "d4"}, "person11", "train"),
        (BOXING, 16, 32): ({"action": "boxing", "scene": "d4"}, "person11", "train"),
    }
    assert ledger(tmp_path / "shards")[WALKING].short_frames == 5


def test_spans_of_the_authors_list_slips_included(tmp_path: Path) -> None:
    texts(tmp_path, {"00sequences.txt": LIST})

    def spans(name: str) -> list[tuple[int, int] | None]:
        return [row.span for row in said("kth", tmp_path, [f"{name}_uncomp.avi"]).rows[f"{name}_uncomp.avi"]]

    assert spans("person01_boxing_d1") == [(0, 95), (95, 185), (185, 245), (245, 360)]
    assert spans("person07_jogging_d4") == [(0, 64), (193, 264), (269, 332), (489, 570)], "in order"
    assert spans("person07_handclapping_d2") == [(0, 102), (102, 248), (248, 368), (368, 518)], "blanks before the tab"
    assert len(spans("person11_boxing_d4")) == 3
    assert spans("person16_handwaving_d4")[2:] == [(206, 311), (211, 456)], "they overlap"
    assert spans("person13_handclapping_d3") == [None], "a film that the list calls missing"


@pytest.mark.parametrize(
    ("split", "parts"),
    [
        (1, {"person01": "train", "person16": "train", "person17": "test", "person22": "test"}),
        ("authors", {"person01": "validation", "person16": "train", "person17": "train", "person22": "test"}),
    ],
)
def test_both_splits(split: int | str, parts: dict[str, str], tmp_path: Path) -> None:
    texts(tmp_path, {"00sequences.txt": LIST})
    names = [f"{person}_walking_d1_uncomp.avi" for person in parts]
    found = said("kth", tmp_path / "films", names, split)  # the list lies beside the folder
    assert {rows[0].group: rows[0].split for rows in found.rows.values()} == parts


def test_what_the_list_does_not_name(tmp_path: Path) -> None:
    texts(tmp_path, {"00sequences.txt": LIST})
    found = said("kth", tmp_path, [BOXING, "person05_running_d2.mp4", "person01_boxing_d1_uncomp (1).mp4"])
    assert found.rows["person05_running_d2.mp4"][0].labels == {"action": "running", "scene": "d2"}
    assert found.notes == [
        "1 films have no frames in 00sequences.txt: all of theirs are labelled (the first: person05_running_d2.mp4)",
        "1 films are not named as in KTH: they carry no labels (the first: person01_boxing_d1_uncomp (1).mp4)",
    ]


@pytest.mark.parametrize(
    ("text", "name", "split", "message"),
    [
        (LIST, "a.avi", 1, r"no film in it is named as in KTH \(person<NN>_<action>_d<N>_uncomp.avi\)"),
        (None, BOXING, 1, r"no 00sequences.txt in it or beside it; get it from the page"),
        (
            "person01_boxing_d1 frames 1-95, 96\n",
            BOXING,
            1,
            r"00sequences.txt, line 1: expected e.g. person01_boxing_d1",
        ),
        ("person01_boxing_d1 frames 9-5\n", BOXING, 1, r"00sequences.txt, line 1: expected e.g."),
        ("person01_boxing_d1 frames 0-5\n", BOXING, 1, r"00sequences.txt, line 1: expected e.g."),
        ("# nothing\n", BOXING, 1, r"names no film's frames"),
        ("person01_boxing_d1 frames 1-5\n", BOXING, "authors", r"does not say who is for Training:"),
    ],
)
def test_bad_folders_are_one_line(text: str | None, name: str, split: int | str, message: str, tmp_path: Path) -> None:
    texts(tmp_path, {} if text is None else {"00sequences.txt": text})
    with pytest.raises(ValueError, match=message) as caught:
        said("kth", tmp_path, [name], split)
    assert "\n" not in str(caught.value)


def test_a_list_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "00sequences.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"00sequences.txt: is no text"):
        said("kth", tmp_path, [BOXING])


def test_the_last_span_ends_with_the_real_film(tmp_path: Path) -> None:
    """What says that the list counts from 1 and includes both ends."""
    with (real_data() / "labels.csv").open() as file:
        frames = {row["path"]: int(row["frames"]) for row in csv.DictReader(file) if "kth_few/person" in row["path"]}
    texts(tmp_path, {"00sequences.txt": LIST})
    found = said("kth", tmp_path, list(frames))
    listed = {name: rows for name, rows in found.rows.items() if rows[0].span}
    assert len(listed) >= 3
    for name, rows in listed.items():
        assert rows[-1].span is not None
        assert rows[-1].span[1] == frames[name]
        assert annotation_of(rows, frames[name] - 1, frames[name]).labels["action"] in name


def test_clips_of_a_real_film_show_the_jogger_or_carry_no_label(tmp_path: Path) -> None:
    name, runs = "person01_jogging_d1_uncomp.avi", [(0, 50), (119, 170), (249, 300), (361, 415)]
    root = texts(tmp_path / "kth", {"00sequences.txt": LIST})
    (root / name).symlink_to(real_data() / f"kth_few/uploads__{name}")
    rows = list(prepared(root, tmp_path / "shards", "layout=kth").values())  # clips as in configs/prepare/kth.yaml
    assert [tuple(row["span"]) for row in rows if row["labels"]] == runs
    gaps = [tuple(row["span"]) for row in rows if not row["labels"]]
    assert gaps == [(50, 85), (85, 119), (170, 210), (210, 249), (300, 361)]
    assert ledger(tmp_path / "shards")[name].short_frames == 0


def real_data() -> Path:
    """Real recordings; skips where there are none."""
    data = Path(os.environ.get("FBM_REAL_DATA", Path(__file__).parents[5] / "shared/data")) / "mixed-clips"
    if not data.is_dir():
        pytest.skip(f"no real data at {data}; FBM_REAL_DATA may name them")
    return data
