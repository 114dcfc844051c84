"""HMDB51: source videos are groups, and where the official split cuts one, its parts are; no group is in train and test."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.data_tools.sources.layouts.laid import facts, films, only, prepared, said, texts

WALK = "walk/Juno_walk_f_cm_np1_fr_med_8.avi"
RUN = "run/Juno_run_f_cm_np1_ba_med_5.avi"
UNUSED = "run/Juno_run_f_cm_np1_ba_med_6.avi"
CRASH = "run/Crash_run_l_cm_np1_fr_med_21.avi"
CRASH_WALK = "walk/Crash_walk_f_nm_np2_le_goo_0.avi"
SCORE = "walk/walk_the_run_-_#1_(1996)_walk_u_nm_np10_ri_bad_12.avi"
SPLIT = "testTrainMulti_7030_splits"
LISTS = {
    f"{SPLIT}/walk_test_split1.txt": (
        "Juno_walk_f_cm_np1_fr_med_8.avi 1 \nCrash_walk_f_nm_np2_le_goo_0.avi 1 \n"
        "walk_the_run_-_#1_(1996)_walk_u_nm_np10_ri_bad_12.avi 2 \n"
    ),
    f"{SPLIT}/run_test_split1.txt": (
        "Juno_run_f_cm_np1_ba_med_5.avi 2 \nJuno_run_f_cm_np1_ba_med_6.avi 0 \nCrash_run_l_cm_np1_fr_med_21.avi 0 \n"
    ),
    f"{SPLIT}/walk_test_split3.txt": "Juno_walk_f_cm_np1_fr_med_8.avi 2 \n",
    f"{SPLIT}/run_test_split3.txt": "Juno_run_f_cm_np1_ba_med_5.avi 2 \n",
}
ALL = [WALK, RUN, UNUSED, CRASH, CRASH_WALK, SCORE]


def test_prepared_end_to_end(tmp_path: Path) -> None:
    texts(tmp_path, LISTS)
    root = films(tmp_path / "hmdb51", dict.fromkeys(ALL, 20))
    rows = prepared(root, tmp_path / "shards", "layout=hmdb51")
    assert {source: facts(row) for (source, _), row in rows.items()} == {
        WALK: ({"action": "walk"}, "Juno/train", "train"),
        RUN: ({"action": "run"}, "Juno/test", "test"),
        UNUSED: ({"action": "run"}, "Juno/unused", None),
        CRASH: ({"action": "run"}, "Crash", None),
        CRASH_WALK: ({"action": "walk"}, "Crash", "train"),
        SCORE: ({"action": "walk"}, "walk_the_run_-_#1_(1996)", "test"),
    }


def test_the_group_is_whole_where_the_split_leaves_it_whole(tmp_path: Path) -> None:
    texts(tmp_path, LISTS)
    found = said("hmdb51", tmp_path, [WALK, RUN, UNUSED], split=3)
    assert {only(found, source).group for source in (WALK, RUN, UNUSED)} == {"Juno"}
    assert found.notes == [f"1 films are in no <class>_test_split3.txt: they belong to no split (the first: {UNUSED})"]
    cut = said("hmdb51", tmp_path, ALL)
    assert cut.notes[0].startswith(
        "1 of 3 source videos are in both train and test of the official split (the first: Juno)"
    )


@pytest.mark.parametrize("folder", ["", "testTrainMulti_7030_splits", "test_train_splits/testTrainMulti_7030_splits"])
def test_lists_may_lie_in_the_folder_or_beside_it(folder: str, tmp_path: Path) -> None:
    texts(tmp_path / folder, {Path(name).name: text for name, text in LISTS.items()})
    for root in (tmp_path, tmp_path / "videos"):
        assert only(said("hmdb51", root, [RUN]), RUN).split == "test"


def test_names_of_its_own_kind_and_others(tmp_path: Path) -> None:
    texts(tmp_path, LISTS)
    found = said("hmdb51", tmp_path, [WALK, "walk/holiday.avi", "run/Juno_jump_f_cm_np1_ba_med_7.avi"])
    assert "1 films are not named as in HMDB51: they carry no labels (the first: walk/holiday.avi)" in found.notes
    assert only(found, "run/Juno_jump_f_cm_np1_ba_med_7.avi").group == "Juno_jump", "its name is of another class"


@pytest.mark.parametrize(
    ("files", "sources", "message"),
    [
        (LISTS, ["walk/a.avi"], r"no film in it is named as in HMDB51"),
        ({}, [WALK], r"no testTrainMulti_7030_splits/<class>_test_split1.txt in it or beside it; unpack test_train_splits.rar"),
        (LISTS, [WALK, "jump/Juno_jump_f_cm_np1_ba_med_5.avi"], r"jump/.*: no list jump_test_split1.txt in .* for its folder"),
        ({f"{SPLIT}/walk_test_split1.txt": "a.avi 3\n"}, [WALK], r"walk_test_split1.txt, line 1: expected the name of a film and 0"),
    ],
)  # fmt: skip
def test_bad_folders_are_one_line(files: dict[str, str], sources: list[str], message: str, tmp_path: Path) -> None:
    texts(tmp_path, files)
    with pytest.raises(ValueError, match=message) as caught:
        said("hmdb51", tmp_path, sources)
    assert "\n" not in str(caught.value)


def test_real_names(tmp_path: Path) -> None:
    data = Path(os.environ.get("FBM_REAL_DATA", Path(__file__).parents[5] / "shared/data")) / "mixed-clips"
    if not data.is_dir():
        pytest.skip(f"no real data at {data}; FBM_REAL_DATA may name them")
    texts(tmp_path, {f"{SPLIT}/{action}_test_split1.txt": "" for action in ("wave", "cartwheel")})
    names = [path.name for path in (data / "torchvision_assets").glob("*_np*.avi")]
    sources = [f"{'cartwheel' if 'cartwheel' in name else 'wave'}/{name}" for name in names]
    found = said("hmdb51", tmp_path, sources)
    assert sorted(row.group or "" for (row,) in found.rows.values()) == [
        "RATRACE",
        "SchoolRulesHowTheyHelpUs",
        "TrumanShow",
        "hmdb51_Turnk_r_Pippi_Michel",
    ]
