"""Films with labels for spans of frames: no clip crosses an edge of a span, and what has no spans is made as it ever was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tools.building.ledger import job_hash
from data_tools.building.pipeline import prepare
from data_tools.care.repair import repair
from data_tools.care.verify import verify
from data_tools.clips import pieces, settings_hash
from data_tools.dataset import read_manifest
from data_tools.places import sha256_of
from data_tools.schema import Prepare, Repair, Verify
from data_tools.sources.labels import Annotation, span_edges
from data_tools.videos import Frame
from tests.data_tools.care.test_repair import spoil
from tests.films import files, film, ledger, settings

LABELS = """path,start,stop,action,group,split
a.mp4,7,30,walk,anna,train
a.mp4,33,60,run,anna,train
whole.mp4,,,jump,bert,test
many.mp4,0,9,walk,cara,train
many.mp4,9,18,run,cara,train
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film of two shots (the second begins at 40) and two spans, of which one crosses the cut; films with none; one of short spans."""
    root = tmp_path_factory.mktemp("films")
    film(root / "a.mp4", (1, 40), (2, 50))
    film(root / "whole.mp4", (3, 50))
    film(root / "bare.mp4", (4, 50))
    film(root / "many.mp4", (5, 20))
    (root / "labels.csv").write_text(LABELS)
    return root


def chosen(root: Path, output: Path, *more: str) -> Prepare:
    return settings(root, output, "max_frames=20", "min_frames=10", "shard_bytes=30000", *more)


@pytest.fixture(scope="module")
def prepared(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("out") / "data"
    prepare(chosen(root, output))
    return output


def clips(output: Path) -> dict[tuple[str, int, int], dict[str, Any]]:
    """Rows of the manifest by source and span."""
    return {(row["source"], *row["span"]): row for row in read_manifest(output).to_pylist()}


def test_a_clip_lies_inside_one_span_or_outside_all(prepared: Path) -> None:
    rows = {key: (row["shot"], dict(row["labels"])) for key, row in clips(prepared).items() if key[0] == "a.mp4"}
    assert rows == {
        ("a.mp4", 7, 19): (0, {"action": "walk"}),
        ("a.mp4", 19, 30): (0, {"action": "walk"}),
        ("a.mp4", 40, 60): (1, {"action": "run"}),
        ("a.mp4", 60, 75): (1, {}),
        ("a.mp4", 75, 90): (1, {}),
    }
    known = {(row["group"], row["split"]) for key, row in clips(prepared).items() if key[0] == "a.mp4"}
    assert known == {("anna", "train")}, "inside and outside"
    assert verify(Verify(path=str(prepared))).problems == []


def test_what_is_left_out_is_counted(prepared: Path) -> None:
    outcomes = ledger(prepared)
    a = outcomes["a.mp4"]
    assert (a.shots, a.clips, a.frames, a.film_frames) == (2, 5, 73, 90)
    assert a.short_frames == 7 + 3 + 7, "before the first span, between the two, and the second one's in the first shot"
    assert outcomes["many.mp4"].reason == "no shot, cut at the edges of its spans, has min_frames = 10 frames"


def test_films_without_spans_are_what_they_would_be_alone(root: Path, prepared: Path, tmp_path: Path) -> None:
    """Their jobs too, by which a data set knows what it has: one that was made before spans were cut takes more films."""
    for name in ("whole.mp4", "bare.mp4"):
        (tmp_path / name).symlink_to(root / name)
    prepare(chosen(tmp_path, tmp_path / "data"))
    alone, beside = clips(tmp_path / "data"), clips(prepared)
    assert set(alone) == {key for key in beside if key[0] in ("whole.mp4", "bare.mp4")}
    assert {key: row["key"] for key, row in alone.items()} == {key: beside[key]["key"] for key in alone}
    assert [key[1:] for key in alone if key[0] == "bare.mp4"] == [(0, 20), (20, 35), (35, 50)]
    row = Annotation(None, "bert", "test", labels={"action": "jump"})
    shaping = settings_hash(chosen(root, prepared))
    assert ledger(prepared)["whole.mp4"].job == job_hash(identity(root / "whole.mp4"), shaping, (row,))
    assert ledger(prepared)["bare.mp4"].job == job_hash(identity(root / "bare.mp4"), shaping, ())


def identity(path: Path) -> str:
    return sha256_of(path)[:20]


def test_damaged_clips_are_made_again_with_the_same_bytes(root: Path, prepared: Path, tmp_path: Path) -> None:
    copy, rows = shutil.copytree(prepared, tmp_path / "data"), clips(prepared)
    spoil(copy, *(rows[key]["key"] for key in (("a.mp4", 19, 30), ("a.mp4", 60, 75), ("bare.mp4", 20, 35))))
    assert files(copy) != files(prepared)
    report = repair(Repair(path=str(copy), input=str(root), workers=1))
    assert (report.rebuilt, report.dropped) == (3, 0)
    assert files(copy) == files(prepared)


def test_a_data_set_whose_spans_were_not_cut_takes_no_more_films(root: Path, prepared: Path, tmp_path: Path) -> None:
    output = shutil.copytree(prepared, tmp_path / "data")
    rows = [json.loads(line) for line in (output / "films.jsonl").read_text().splitlines()]
    said = tuple(
        Annotation(span, "anna", "train", labels={"action": action})
        for span, action in (((7, 30), "walk"), ((33, 60), "run"))
    )
    before = job_hash(identity(root / "a.mp4"), settings_hash(chosen(root, output)), said)
    for row in rows:
        row["job"] = before if row["source"] == "a.mp4" else row["job"]
    (output / "films.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match=r"films changed .* or their spans were not cut at then \(first: a.mp4\)"):
        prepare(chosen(root, output))


def test_shared_frames_belong_to_the_first_row(tmp_path: Path) -> None:
    film(tmp_path / "films/a.mp4", (1, 60))
    (tmp_path / "films/labels.csv").write_text("path,start,stop,n\na.mp4,0,25,one\na.mp4,15,45,two\na.mp4,,,all\n")
    prepare(chosen(tmp_path / "films", tmp_path / "data", "max_frames=64"))
    rows = clips(tmp_path / "data")
    assert {key[1:]: dict(row["labels"])["n"] for key, row in rows.items()} == {
        (0, 25): "one",
        (25, 45): "two",
        (45, 60): "all",
    }


SPANS = st.lists(
    st.tuples(st.integers(0, 60), st.integers(1, 40)).map(lambda drawn: (drawn[0], sum(drawn))), max_size=5
)


@given(SPANS, st.integers(1, 70))
def test_frames_are_dealt_to_clips_without_loss_whatever_the_spans(spans: list[tuple[int, int]], count: int) -> None:
    given = settings(Path("x"), Path("y"), "shots.detector=none", "max_frames=10", "min_frames=1")
    edges = span_edges(tuple(Annotation(span) for span in spans))
    parts = list(pieces((Frame(np.zeros((8, 8, 3), np.uint8), i, (8, 8)) for i in range(count)), given, edges))
    assert [f.source for _, _, frames in parts for f in frames] == list(range(count))
    assert {shot for shot, _, _ in parts} == {0}
    for _, start, frames in parts:
        assert start == frames[0].source
        assert len(frames) <= 10
        assert not edges & set(range(start + 1, start + len(frames)))
