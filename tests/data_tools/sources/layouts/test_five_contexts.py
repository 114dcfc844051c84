"""5-Contexts: camera, part and context in any order of the levels, with frames or videos; negatives are no context."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data_tools.sources.layouts.laid import facts, only, prepared, said
from tests.films import film, picture


def frames(folder: Path, scene: int, count: int) -> None:
    from PIL import Image

    for i in range(count):
        path = folder / f"{i + 1}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(scene, 2 * i)).save(path)


def test_prepared_end_to_end(tmp_path: Path) -> None:
    root = tmp_path / "personal_contexts_dataset"
    for scene, name in enumerate(
        ("RJ/Training/car", "RJ/Test/car", "LX2P/Training/Home_office", "LX2P/Test/negatives")
    ):
        frames(root / name, scene + 1, 16)
    film(root / "LX3/Test/tv_2.mp4", (9, 20))
    rows = prepared(root, tmp_path / "shards", "layout=five_contexts", "frames_fps=30.0")
    assert {source: facts(row) for (source, _), row in rows.items()} == {
        "RJ/Training/car": ({"context": "car", "device": "RJ"}, "RJ/Training/car", "train"),
        "RJ/Test/car": ({"context": "car", "device": "RJ"}, "RJ/Test/car", "test"),
        "LX2P/Training/Home_office": (
            {"context": "home office", "device": "LX2P"},
            "LX2P/Training/Home_office",
            "train",
        ),
        "LX2P/Test/negatives": ({"device": "LX2P"}, "LX2P/Test/negatives", "test"),
        "LX3/Test/tv_2.mp4": ({"context": "tv", "device": "LX3"}, "LX3/Test/tv_2", "test"),
    }


@pytest.mark.parametrize(
    ("source", "context", "device"),
    [
        ("train/LX2W/coffee-vending-machine.avi", "coffee vending machine", "LX2W"),
        ("Office/Testing/lx3_04.mp4", "office", "LX3"),
        ("car1/rj/test.mp4", "car", "RJ"),
        ("LX3/test/TV/video 3", "tv", "LX3"),
        ("test/car", "car", None),
    ],
)
def test_levels_in_any_order(source: str, context: str, device: str | None, tmp_path: Path) -> None:
    both = ["RJ/Test/car.mp4", "RJ/Training/car.mp4", source]
    labels = only(said("five_contexts", tmp_path, both), source).labels
    assert labels == {"context": context} | ({"device": device} if device else {})


def test_one_cameras_folder_and_single_pictures(tmp_path: Path) -> None:
    found = said(
        "five_contexts", tmp_path / "LX2W", ["Test/car/1.jpg", "Test/car/2.jpg", "Training/tv/1.jpg", "Test/7.jpg"]
    )
    assert {row.group for (row,) in found.rows.values()} == {"Test/car", "Training/tv"}, "a recording is a group"
    assert only(found, "Test/car/2.jpg").labels == {"context": "car", "device": "LX2W"}
    assert found.notes == [
        "1 films lie below no training or test folder of a context: they carry no labels (the first: Test/7.jpg)"
    ]


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (["RJ/car.mp4"], r"no film in it is named as in 5-Contexts \(<camera>/<Training\|Test>/<context>\)"),
        (["RJ/Test/car.mp4"], r"only films for test; give the folder that holds both Training and Test"),
    ],
)
def test_bad_folders_are_one_line(sources: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        said("five_contexts", tmp_path, sources)
    assert "\n" not in str(caught.value)
