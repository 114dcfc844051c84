"""UCF-101: class and group from the names, the three splits, boxes of THUMOS'13 and the corrected ones as true masks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from data_tools.places import place, write_atomic
from data_tools.shards import read_sample
from data_tools.sources.boxes import Box
from data_tools.sources.layouts import Options, read
from data_tools.sources.layouts.ucf101_boxes import ACTIONS, mat_boxes, xgtf_boxes
from tests.data_tools.sources.layouts.laid import facts, films, only, prepared, said, texts
from tests.films import ledger

LISTS = {
    "ucfTrainTestlist/classInd.txt": "1 ApplyEyeMakeup\r\n7 Basketball\r\n37 HandstandPushups\r\n75 RopeClimbing\r\n",
    "ucfTrainTestlist/trainlist01.txt": (
        "Basketball/v_Basketball_g08_c01.avi 7\r\nHandstandPushups/v_HandStandPushups_g08_c01.avi 37\r\n"
        "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1\r\n"
    ),
    "ucfTrainTestlist/testlist01.txt": "Basketball/v_Basketball_g01_c01.avi\r\nRopeClimbing/v_RopeClimbing_g02_c01.avi\r\n",
    "ucfTrainTestlist/trainlist02.txt": "Basketball/v_Basketball_g01_c01.avi 7\r\n",
    "ucfTrainTestlist/testlist02.txt": "Basketball/v_Basketball_g08_c01.avi\r\n",
}
TRAINED, TESTED = "Basketball/v_Basketball_g08_c01.avi", "Basketball/v_Basketball_g01_c01.avi"
CLIMBING, MAKEUP = "RopeClimbing/v_RopeClimbing_g02_c01.avi", "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi"
XML = "UCF101_24Action_Detection_Annotations/UCF101_24_Annotations"


def xgtf(*objects: str, empty_first: bool = False) -> str:
    """ViPER's XML as THUMOS'13 has it; each object is its `bbox` elements."""
    things = "".join(
        f'<object framespan="1:40" id="{i}" name="PERSON"><attribute name="Location">{boxes}</attribute>'
        f'<attribute name="Basketball"><data:bvalue framespan="1:40" value="true"/></attribute></object>'
        for i, boxes in enumerate(objects)
    )
    file = '<file id="0" name="Information"><attribute name="NUMFRAMES"><data:dvalue value="40"/></attribute></file>'
    first = f'<sourcefile filename="none.avi">{file}</sourcefile>' if empty_first else ""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<viper xmlns="http://lamp.cfar.umd.edu/viper#" xmlns:data="http://lamp.cfar.umd.edu/viperdata#"><config/>'
        f'<data>{first}<sourcefile filename="v.avi">{file}{things}</sourcefile></data></viper>'
    )


def bbox(span: str, x: int, y: int, width: int, height: int) -> str:
    return f'<data:bbox framespan="{span}" height="{height}" width="{width}" x="{x}" y="{y}"/>'


def annotate(root: Path) -> None:
    """THUMOS'13's boxes: one is spelt in capitals, one is no XML."""
    texts(root, {
        f"{XML}/Basketball/v_Basketball_g08_c01.xgtf": xgtf(bbox("1:16", 0, 0, 48, 72), bbox("9:40", 48, 36, 48, 36)),
        f"{XML}/RopeClimbing/v_RopeClimbing_g02_C01.xgtf": xgtf(bbox("1:40", 24, 0, 48, 72), empty_first=True),
        f"{XML}/Basketball/v_Basketball_g01_c01.xgtf": "<viper><data>",
    })  # fmt: skip


@pytest.fixture(scope="module")
def ucf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two archives as they unpack beside each other, and the boxes."""
    root = tmp_path_factory.mktemp("ucf")
    texts(root, LISTS)
    annotate(root)
    return films(root / "UCF-101", {TRAINED: 40, TESTED: 40, CLIMBING: 32, MAKEUP: 32}).parent


def test_prepared_end_to_end_with_boxes_as_true_masks(ucf: Path, tmp_path: Path) -> None:
    given = ("layout=ucf101", "layout_boxes=thumos", "masks.kind=given", "max_frames=32", "min_frames=8")
    rows = prepared(ucf / "UCF-101", tmp_path / "shards", *given)
    assert {key: facts(row) for key, row in rows.items()} == {
        (TRAINED, 0): ({"action": "Basketball"}, "Basketball_g08", "train"),
        (TRAINED, 20): ({"action": "Basketball"}, "Basketball_g08", "train"),
        (CLIMBING, 0): ({"action": "RopeClimbing"}, "RopeClimbing_g02", "test"),
    }
    assert {source: o.reason for source, o in ledger(tmp_path / "shards").items() if o.status != "used"} == {
        TESTED: "no true masks beside it, and masks.kind is given",
        MAKEUP: "not one of the 24 classes of UCF-101 with boxes",
    }
    truth = read_sample(tmp_path / "shards", rows[TRAINED, 0]).truth
    assert truth is not None
    left, right = np.s_[:, : truth.shape[2] // 2], np.s_[truth.shape[1] // 2 :, truth.shape[2] // 2 :]
    for frame, mask in enumerate(truth > 0):
        assert mask[left].all() == mask[left].any() == (frame < 16), "spans end with their last frame"
        assert mask[right].all() == mask[right].any() == (frame >= 8), "and begin with their first, counted from 1"
        assert not mask[: truth.shape[1] // 2, truth.shape[2] // 2 :].any()


def test_all_classes_without_boxes(ucf: Path, tmp_path: Path) -> None:
    rows = prepared(ucf, tmp_path / "shards", "layout=ucf101", "layout_split=2")
    assert {row["source"]: facts(row)[1:] for row in rows.values()} == {
        f"UCF-101/{TRAINED}": ("Basketball_g08", "test"),
        f"UCF-101/{TESTED}": ("Basketball_g01", "train"),
        f"UCF-101/{CLIMBING}": ("RopeClimbing_g02", None),
        f"UCF-101/{MAKEUP}": ("ApplyEyeMakeup_g08", None),
    }
    assert {read_sample(tmp_path / "shards", row).truth for row in rows.values()} == {None}, "no boxes were asked for"


def test_lists_may_lie_inside_the_folder_and_spell_a_class_in_two_ways(tmp_path: Path) -> None:
    texts(tmp_path, LISTS)
    found = said("ucf101", tmp_path, ["HandstandPushups/v_HandStandPushups_g08_c01.mp4", TRAINED, "odd.avi", MAKEUP])
    row = only(found, "HandstandPushups/v_HandStandPushups_g08_c01.mp4")
    assert (row.labels, row.group, row.split) == ({"action": "HandstandPushups"}, "HandstandPushups_g08", "train")
    assert "odd.avi" not in found.rows
    assert found.notes == ["1 films are not named as in UCF-101: they carry no labels (the first: odd.avi)"]


def test_a_film_in_no_list_is_told(tmp_path: Path) -> None:
    texts(tmp_path, LISTS)
    found = said("ucf101", tmp_path, [TRAINED, "Basketball/v_Basketball_g09_c01.avi"])
    assert only(found, "Basketball/v_Basketball_g09_c01.avi").split is None
    assert "1 films are in neither trainlist01.txt nor testlist01.txt" in found.notes[0]


def test_a_folder_in_a_store() -> None:
    root = place("memory://ucf-store/UCF-101")
    for name, text in LISTS.items():
        write_atomic(root.parent / name, text.encode())
    write_atomic(root.parent / XML / "Basketball/v_Basketball_g08_c01.xgtf", xgtf(bbox("3:3", 1, 2, 3, 4)).encode())
    found = read("ucf101", root, [TRAINED], Options(boxes="thumos"))
    assert found.boxes == {TRAINED: (Box(2, 1, 2, 4, 6),)}
    assert only(found, TRAINED).split == "train"


@pytest.mark.parametrize(
    ("change", "sources", "message"),
    [
        ({}, ["a.avi"], r"no film in it is named as in UCF-101 \(v_<Class>_g<NN>_c<NN>.avi\); give the folder"),
        (None, [TRAINED], r"no ucfTrainTestlist/classInd.txt in it or beside it; unpack UCF101TrainTestSplits"),
        ({"ucfTrainTestlist/trainlist01.txt": None}, [TRAINED], r"trainlist01.txt: no such file"),
        ({"ucfTrainTestlist/trainlist01.txt": "a\n"}, [TRAINED], r"trainlist01.txt, line 1: expected e.g. Apply"),
        ({"ucfTrainTestlist/classInd.txt": "Basketball\n"}, [TRAINED], r"classInd.txt, line 1: expected a number"),
        ({}, ["Chess/v_Chess_g01_c01.avi"], r"Chess/v_Chess_g01_c01.avi: no class 'Chess' in .*classInd.txt"),
    ],
)
def test_bad_folders_are_one_line(change: Any, sources: list[str], message: str, tmp_path: Path) -> None:
    files = {} if change is None else {**LISTS, **change}
    texts(tmp_path / "x", {name: text for name, text in files.items() if text is not None})
    with pytest.raises(ValueError, match=message) as caught:
        said("ucf101", tmp_path / "x/UCF-101", sources)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["thumos", "corrected"])
def test_boxes_that_are_not_there(kind: str, tmp_path: Path) -> None:
    texts(tmp_path, LISTS)
    with pytest.raises(ValueError, match=r"in it or beside it; .*layout_boxes="):
        said("ucf101", tmp_path, [TRAINED], boxes=kind)


def test_boxes_that_cannot_be_read_are_told(ucf: Path) -> None:
    found = said("ucf101", ucf / "UCF-101", [TRAINED, TESTED, CLIMBING], boxes="thumos")
    assert set(found.boxes) == {TRAINED, CLIMBING}
    assert found.notes == [
        "1 films have annotations that cannot be read (the first: v_Basketball_g01_c01.xgtf)",
        f"1 films have no boxes in the annotations (the first: {TESTED})",
    ]


def test_the_xml_as_the_papers_authors_read_it() -> None:
    both = bbox("1:3", 0, 0, 10, 10) + bbox("3:4", 5, 5, 10, 20) + bbox("2:2 7:7", 1, 1, 0, 9)
    assert xgtf_boxes(xgtf(both, bbox("4:4", -3, 2, 6, 6)).encode()) == (
        Box(0, 0, 0, 10, 10),
        Box(1, 0, 0, 10, 10),
        Box(2, 5, 5, 15, 25),  # the later box of the same frame
        Box(3, -3, 2, 3, 8),
        Box(3, 5, 5, 15, 25),
    )
    assert xgtf_boxes(xgtf().encode()) == ()
    for bad in ("<a>", xgtf('<data:bbox framespan="1" x="1" y="1" width="3" height="3"/>'), xgtf("<data:bbox/>")):
        with pytest.raises(ValueError, match=r"is no XML|without x, y, width"):
            xgtf_boxes(bad.encode())


def corrected(path: Path) -> Path:
    tube = np.dtype([("ef", object), ("sf", object), ("class", object), ("boxes", object)])
    film = np.dtype([("num_imgs", object), ("name", object), ("tubes", object)])
    two = np.array(
        [[(4.0, 3.0, 1.0, np.array([[1.0, 1, 10, 20], [3, 5, 10, 20]])), (9.0, 9.0, 1.0, np.array([[2.0, 2, 5, 5]]))]],
        tube,
    )
    one = np.array([[(2.0, 1.0, 14.0, np.array([[11.0, 1, 10, 20], [11, 1, 0, 20]]))]], tube)
    films = [(40.0, "Basketball/v_Basketball_g08_c01", two), (40.0, "RopeClimbing/v_RopeClimbing_g02_c01", one)]
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"annot": np.array([films], film)})
    return path


def test_the_corrected_boxes(tmp_path: Path) -> None:
    texts(tmp_path, LISTS)
    path = corrected(tmp_path / "corrected-UCF101-Annots/finalAnnots.mat")
    found = said("ucf101", tmp_path / "UCF-101", [TRAINED, CLIMBING, MAKEUP], boxes="corrected")
    assert found.boxes == {
        TRAINED: (Box(2, 0, 0, 10, 20), Box(3, 2, 4, 12, 24), Box(8, 1, 1, 6, 6)),
        CLIMBING: (Box(0, 10, 0, 20, 20),),
    }
    assert set(found.left_out) == {MAKEUP}
    for bad in (path.read_bytes()[:200], b"\x80\x04K\x01.", b""):
        with pytest.raises(ValueError, match="is no MATLAB file with `annot`") as caught:
            mat_boxes(bad)
        assert "\n" not in str(caught.value)
    path.write_bytes(b"MATLAB 5.0")
    with pytest.raises(ValueError, match=r"finalAnnots.mat: is no MATLAB file"):
        said("ucf101", tmp_path / "UCF-101", [TRAINED], boxes="corrected")


def test_there_are_24_classes_with_boxes() -> None:
    assert len(ACTIONS) == 24


def test_real_names(tmp_path: Path) -> None:
    data = Path(os.environ.get("FBM_REAL_DATA", Path(__file__).parents[5] / "shared/data")) / "mixed-clips"
    if not data.is_dir():
        pytest.skip(f"no real data at {data}; FBM_REAL_DATA may name them")
    classes = {"ucfTrainTestlist/classInd.txt": "1 BaseballPitch\n2 SoccerJuggling\n"}
    texts(tmp_path, {**LISTS, **classes})
    names = sorted(str(path.relative_to(data)) for path in data.rglob("v_*.avi"))
    found = said("ucf101", tmp_path, names)
    assert sorted(row.group or "" for (row,) in found.rows.values()) == [
        "BaseballPitch_g01",
        "SoccerJuggling_g23",
        "SoccerJuggling_g24",
    ]
