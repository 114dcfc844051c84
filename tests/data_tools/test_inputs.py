"""What labels.csv says reaches the films that it names, whatever their names."""

from __future__ import annotations

from pathlib import Path

from data_tools.pipeline import prepare
from data_tools.shards import read_manifest
from tests.films import film, ledger, settings


def test_a_list_has_the_labels_beside_it(tmp_path: Path) -> None:
    film(tmp_path / "films/a.mp4", (8, 20))
    film(tmp_path / "films/b.mp4", (9, 20))
    (tmp_path / "labels.csv").write_text("path,action\nfilms/a.mp4,walk\nfilms/b.mp4,run\n")
    (tmp_path / "some.txt").write_text("./films/a.mp4\n")
    prepare(settings(tmp_path / "some.txt", tmp_path / "data"))
    (row,) = read_manifest(tmp_path / "data").to_pylist()
    assert dict(row["labels"]) == {"action": "walk"}
    assert set(ledger(tmp_path / "data")) == {"films/a.mp4"}, "what the list does not name is no loss"


def test_odd_names_of_labelled_films(tmp_path: Path) -> None:
    names = ["back\\slash.mp4", "line\u2028end.mp4", "näme #1 'x'.mp4"]
    for i, name in enumerate(names):
        film(tmp_path / "films" / name, (i + 3, 20))
    (tmp_path / "films/labels.csv").write_text("path,action\n" + "".join(f"{name},run\n" for name in names))
    prepare(settings(tmp_path / "films", tmp_path / "data"))
    assert {s: o.status for s, o in ledger(tmp_path / "data").items()} == dict.fromkeys(names, "used")
    assert all(dict(r["labels"]) == {"action": "run"} for r in read_manifest(tmp_path / "data").to_pylist())
    assert prepare(settings(tmp_path / "films", tmp_path / "data")).new_clips == 0
