"""True masks go with the frames that they were drawn for, or with none."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
from PIL import Image

from data_tools.building.pipeline import prepare
from data_tools.dataset import read_manifest
from data_tools.shards import read_sample
from data_tools.sources.films import Film
from data_tools.truth import Pictures, true_masks
from tests.films import film, ledger, picture, settings


def test_masks_belong_to_the_frames_of_their_names(tmp_path: Path) -> None:
    frames, masks = tmp_path / "films/JPEGImages/a", tmp_path / "films/Annotations/a"
    frames.mkdir(parents=True)
    masks.mkdir(parents=True)
    for i in range(40):
        Image.fromarray(picture(7, 2 * i)).save(frames / f"{i:05d}.png")
        if i < 20 or i % 5 == 0:  # of the second half, only some frames were annotated
            mask = np.zeros((72, 96), bool)
            mask[:, i : i + 24] = True
            Image.fromarray(mask).save(masks / f"{i:05d}.png")
    (masks / "00003.png").rename(masks / "00040.png")
    truth = true_masks(Film("a", frames, "frames", masks))
    assert isinstance(truth, Pictures)
    found = truth.pictures
    assert [path.stem if path else "" for path in found[:5]] == ["00000", "00001", "00002", "", "00004"]
    assert found[20] == masks / "00020.png"
    assert found[21] is None
    (masks / "00040.png").rename(masks / "00003.png")
    prepare(settings(tmp_path / "films", tmp_path / "data", "max_frames=20", "min_frames=10"))
    truths = {
        r["span"][0]: read_sample(tmp_path / "data", r).truth for r in read_manifest(tmp_path / "data").to_pylist()
    }
    assert truths[20] is None
    assert truths[0] is not None
    assert ledger(tmp_path / "data")["JPEGImages/a"].notes == ("1 clips have no true masks: 24 masks for 40 frames",)


def test_masks_of_other_names_count_in_order_only_where_there_are_as_many(tmp_path: Path) -> None:
    frames = [tmp_path / f"frames/f{i}.png" for i in range(3)]
    masks = [tmp_path / f"masks/{i}.png" for i in range(3)]
    for path in frames + masks:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    one = Film("a", tmp_path / "frames", "frames", tmp_path / "masks")
    assert pictures(one) == masks
    masks[1].unlink()
    assert pictures(one) == [None, None, None]


def test_after_a_lost_packet_nobody_knows_whose_masks_they_are(tmp_path: Path) -> None:
    made = film(tmp_path / "films/a.mp4", (7, 60))
    (tmp_path / "films/truth").mkdir()
    for i in range(60):
        Image.fromarray(np.ones((72, 96), bool)).save(tmp_path / f"films/truth/{i}.png")
    (tmp_path / "films/labels.csv").write_text("path,truth\na.mp4,truth\n")
    with av.open(str(made)) as container:
        packets = [(p.pos or 0, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(made.read_bytes())
    at, size = packets[40]
    data[at : at + size] = b"\xff" * size
    made.write_bytes(data)
    prepare(settings(tmp_path / "films", tmp_path / "data", "max_frames=16", "shots.detector=none"))
    outcome = ledger(tmp_path / "data")["a.mp4"]
    assert outcome.notes[0] == "1 damaged packets skipped"
    assert "clips have no true masks" in outcome.notes[1]
    for row in read_manifest(tmp_path / "data").to_pylist():
        truth = read_sample(tmp_path / "data", row).truth
        assert row["span"][1] <= 40 or truth is None
        assert row["span"][0] > 0 or truth is not None, "what was read before the damage keeps its masks"


def pictures(film: Film) -> list[object]:
    truth = true_masks(film)
    assert isinstance(truth, Pictures)
    return list(truth.pictures)
