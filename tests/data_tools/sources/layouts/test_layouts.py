"""What layouts have in common: labels.csv and boxes.csv go before them, settings that fit none are refused, they shape a data set."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from data_tools.building.pipeline import prepare
from data_tools.config import ConfigError, load
from data_tools.schema import SPLITS, Layout, Prepare
from data_tools.sources.boxes import Box
from data_tools.sources.inputs import discover, remarks
from data_tools.sources.labels import Annotation, filled
from data_tools.sources.layouts import READERS
from tests.data_tools.sources.layouts.laid import films, texts
from tests.data_tools.sources.layouts.test_kth import LIST
from tests.data_tools.sources.layouts.test_ucf101 import LISTS, MAKEUP, TESTED, TRAINED, annotate
from tests.data_tools.sources.test_films import touch
from tests.films import settings


def prepare_settings(**given: object) -> Prepare:
    return Prepare(input="in", output="out", **given)  # type: ignore[arg-type]


def test_every_layout_has_a_reader_and_splits() -> None:
    assert set(get_args(Layout)) == set(READERS) == set(SPLITS)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["layout=ucf"], r"layout: Input should be 'ucf101', 'hmdb51', 'kth' or 'five_contexts'"),
        (["layout=kth", "layout_split=2"], r"layout_split 2: kth has 1, authors"),
        (["layout=ucf101", "layout_split=authors"], r"layout_split authors: ucf101 has 1, 2, 3"),
        (["layout=kth", "layout_boxes=thumos"], r"layout_boxes is for layout ucf101; kth comes without boxes"),
    ],
)
def test_settings_that_fit_no_data_set(given: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(Prepare, None, ["input=a", "output=b", *given])


def test_a_layout_shapes_a_data_set_and_none_leaves_the_settings_as_they_were() -> None:
    assert not any(name.startswith("layout") for name in prepare_settings().shaping())
    made = prepare_settings(layout="kth", layout_split="authors").shaping()
    assert (made["layout"], made["layout_split"], made["layout_boxes"]) == ("kth", "authors", None)


def test_a_list_is_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a.mp4\n")
    with pytest.raises(ValueError, match=r"list.txt: is no folder, and `layout` is for one"):
        discover(Prepare(input=str(tmp_path / "list.txt"), output="out", layout="kth"))


def test_labels_and_boxes_beside_the_films_go_before_the_layout(tmp_path: Path) -> None:
    texts(tmp_path, LISTS)
    annotate(tmp_path)
    root = tmp_path / "UCF-101"
    for name in (TRAINED, TESTED, MAKEUP, "more/other.avi"):
        touch(root / name)
    texts(root, {
        "labels.csv": f"path,group,action,view\n{TRAINED},mine,,side\n{TESTED},,shooting,\nmore/other.avi,,run,\n",
        "boxes.csv": f"path,frame,x0,y0,x1,y1\n{TRAINED},0,1,1,2,2\n",
    })  # fmt: skip
    found, rows = discover(Prepare(input=str(root), output="out", layout="ucf101", layout_boxes="thumos"))
    (trained,), (tested,) = rows[TRAINED], rows[TESTED]
    assert (trained.group, trained.split, trained.labels) == ("mine", "train", {"action": "Basketball", "view": "side"})
    assert (tested.group, tested.split, tested.labels) == ("Basketball_g01", "test", {"action": "shooting"})
    assert rows["more/other.avi"] == (Annotation(labels={"action": "run"}),)
    assert {film.source: film.boxes for film in found.films} == {
        TRAINED: (Box(0, 1, 1, 2, 2),),
        TESTED: (),
        "more/other.avi": (),
    }
    assert [(r.source, r.reason) for r in found.rejected] == [
        (MAKEUP, "not one of the 24 classes of UCF-101 with boxes")
    ]
    assert "1 films are not named as in UCF-101: they carry no labels (the first: more/other.avi)" in list(
        remarks(found, rows)
    )


def test_several_inputs_have_their_prefixes(tmp_path: Path) -> None:
    names = ("a/boxing/person01_boxing_d1_uncomp.avi", "b/boxing/person11_boxing_d4_uncomp.avi")
    for name in names:
        touch(tmp_path / name)
    texts(tmp_path, {"00sequences.txt": LIST})
    _, rows = discover(Prepare(input=(str(tmp_path / "a"), str(tmp_path / "b")), output="out", layout="kth"))
    assert {source: (len(found), found[0].group) for source, found in rows.items()} == {
        names[0]: (4, "person01"),
        names[1]: (3, "person11"),
    }


def test_rows_are_filled_span_by_span() -> None:
    base = (
        Annotation((0, 10), "p", "train", labels={"action": "run"}),
        Annotation((20, 30), "p", "train", labels={"action": "run"}),
    )
    whole = filled((Annotation(licence="CC0", labels={"view": "side"}),), base)
    assert [row.span for row in whole] == [(0, 10), (20, 30)]
    assert {(row.group, row.licence) for row in whole} == {("p", "CC0")}
    assert whole[0].labels == {"action": "run", "view": "side"}
    own = (Annotation((5, 25), None, "test", labels={"action": "walk"}), Annotation((12, 18)), Annotation(id="7"))
    spanned = filled(own, base)
    assert [row.span for row in spanned] == [(5, 25), (12, 18), None]
    assert [row.split for row in spanned] == ["test", "train", "train"]
    assert [row.labels.get("action") for row in spanned] == ["walk", None, None], "no run covers all of them"
    assert filled((Annotation((22, 30), id="7"),), base)[0].labels == {"action": "run"}
    assert filled((), base) == base
    assert filled(own, ()) == own


def test_another_layout_is_refused_for_a_data_set_that_is_there(tmp_path: Path) -> None:
    root = films(texts(tmp_path / "kth", {"00sequences.txt": LIST}), {"person01_boxing_d1_uncomp.avi": 20})
    prepare(settings(root, tmp_path / "shards", "layout=kth"))
    with pytest.raises(ConfigError, match=r"made with other settings .*layout_split was 1, is \"authors\""):
        prepare(settings(root, tmp_path / "shards", "layout=kth", "layout_split=authors"))
    with pytest.raises(ConfigError, match=r"made with other settings \(layout"):
        prepare(settings(root, tmp_path / "shards"))
