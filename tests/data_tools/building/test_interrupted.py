"""What a run leaves behind when it dies at a bad moment, and what people do before the next: nothing is lost, nothing taken twice."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path
from typing import Any

import pytest

import data_tools.building.packing as packing
from data_tools.building.pipeline import prepare
from data_tools.dataset import read_manifest
from data_tools.places import listed, place, write_atomic
from data_tools.progress import Silent
from tests.films import files, film, ledger, settings

OPTIONS = ("shard_bytes=20000",)


def sources(root: Path) -> list[str]:
    return sorted({row["source"] for row in read_manifest(root).to_pylist()})


def die(*_: Any) -> None:
    raise KeyboardInterrupt


def interrupted(monkeypatch: pytest.MonkeyPatch, films: Path, output: Path, target: str) -> None:
    """A `prepare` that ends where packing calls `target`."""
    with monkeypatch.context() as patch:
        patch.setattr(packing, target, die)
        with pytest.raises(KeyboardInterrupt):
            prepare(settings(films, output, *OPTIONS))


@pytest.fixture
def films(tmp_path: Path) -> Path:
    for i, name in enumerate("bcd"):
        film(tmp_path / f"films/{name}.mp4", (2 * i, 40), (2 * i + 1, 40))
    return tmp_path / "films"


@pytest.mark.parametrize("damage", [lambda data: data[:-700], lambda data: b"\0" * len(data)])
def test_a_clip_that_a_power_failure_tore_is_made_again(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Any
) -> None:
    output = tmp_path / "data"
    interrupted(monkeypatch, films, output, "_pack")
    clip = sorted((output / "staging").rglob("*.clip"))[1]
    clip.write_bytes(damage(clip.read_bytes()))
    (output / ".films.jsonl.4711.tmp").write_bytes(b"half")
    prepare(settings(films, output, *OPTIONS))
    prepare(settings(films, tmp_path / "whole", *OPTIONS))
    assert files(output) == files(tmp_path / "whole")


def test_without_its_staging_folder_a_data_set_still_loses_no_film(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "data"
    prepare(settings(films, output, *OPTIONS))
    film(films / "e.mp4", (44, 40), (45, 40))
    interrupted(monkeypatch, films, output, "commit_snapshot")
    shutil.rmtree(output / "staging")
    film(films / "f.mp4", (46, 40), (47, 40))
    prepare(settings(films, output, *OPTIONS))
    assert sources(output) == sorted(s for s, o in ledger(output).items() if o.status == "used")
    assert sources(output) == ["b.mp4", "c.mp4", "d.mp4", "e.mp4", "f.mp4"]


def test_shards_of_others_in_a_store_are_left_alone(films: Path) -> None:
    there = place(f"memory://{uuid.uuid4().hex}/mine")
    write_atomic(there / "shards/00000.tar", b"theirs")
    given = settings(films, Path("x"), *OPTIONS).model_copy(update={"output": str(there)})
    with pytest.raises(ValueError, match="not empty and holds no data set"):
        prepare(given)
    assert listed(there / "shards") == ["00000.tar"]


def test_a_copy_under_an_earlier_name_is_a_duplicate_of_what_is_packed(films: Path, tmp_path: Path) -> None:
    (films / "labels.csv").write_text("path,id\nb.mp4,one\na.mp4,two\n")
    prepare(settings(films, tmp_path / "data"))
    shutil.copy(films / "b.mp4", films / "a.mp4")
    prepare(settings(films, tmp_path / "data"))
    outcomes = ledger(tmp_path / "data")
    assert (outcomes["a.mp4"].reason, outcomes["a.mp4"].id) == ("duplicate of b.mp4", "two")
    assert outcomes["b.mp4"].status == "used"
    assert sources(tmp_path / "data") == ["b.mp4", "c.mp4", "d.mp4"]


def test_who_opts_out_after_packing_is_told_to_be_scrubbed(films: Path, tmp_path: Path) -> None:
    notes: list[str] = []

    class Listening(Silent):
        def note(self, text: str) -> None:
            notes.append(text)

    prepare(settings(films, tmp_path / "data"))
    before = files(tmp_path / "data")
    (tmp_path / "out.txt").write_text("c.mp4\nelse.mp4\n")
    film(films / "else.mp4", (50, 40))
    prepare(settings(films, tmp_path / "data", f"optouts={tmp_path / 'out.txt'}"), Listening())
    assert ledger(tmp_path / "data")["else.mp4"].reason == "opted out"
    assert ledger(tmp_path / "data")["c.mp4"].status == "used"
    assert [note for note in notes if "scrub" in note and note.startswith("1 films")]
    assert files(tmp_path / "data").keys() == before.keys()


def test_a_renamed_folder_of_frames_is_the_same_film(tmp_path: Path) -> None:
    from PIL import Image

    from tests.films import picture

    folder = tmp_path / "films/walk"
    folder.mkdir(parents=True)
    for i in range(20):
        Image.fromarray(picture(3, i)).save(folder / f"{i}.png")
    prepare(settings(tmp_path / "films", tmp_path / "data"))
    folder.rename(tmp_path / "films/gait")
    prepare(settings(tmp_path / "films", tmp_path / "data"))
    assert ledger(tmp_path / "data")["gait"].reason == "duplicate of walk"
    assert sources(tmp_path / "data") == ["walk"]
