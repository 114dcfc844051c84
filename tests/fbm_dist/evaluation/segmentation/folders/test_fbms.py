"""FBMS-59 in its own naming: sparse annotations, Def.dat, colours in .ppm, grey values in .pgm."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fbm_dist.evaluation.segmentation.folders.find import find_sequences
from tests.fbm_dist.evaluation.segmentation.drawn import save, write_frames

WHITE, RED, GREEN, BLUE = (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255)


def definition(regions: list[int], labelled: list[tuple[int, str, str]], frames: int) -> str:
    """A Def.dat as the benchmark writes it."""
    scales = "".join(f"\nScale of region {i}:\n{value}\n" for i, value in enumerate(regions))
    matrix = "\n".join(" ".join("0" if i == j else "1" for j in range(len(regions))) for i in range(len(regions)))
    files = "".join(
        f"\nFrame number:\n{n}\nFile name:\n{own}\nInput file name:\n{given}\n" for n, own, given in labelled
    )
    return (
        f"Ground truth definition file; do not change!\n\nTotal number of regions:\n{len(regions)}\n{scales}\n"
        f"Confusion penality matrix\n{matrix}\n\nTotal number of frames in this shot:\n{frames}\n"
        f"Total number of labeled frames for this shot:\n{len(labelled)}\n{files}"
    )


def code(colour: tuple[int, int, int]) -> int:
    return colour[0] * 65536 + colour[1] * 256 + colour[2]


def bear(root: Path) -> Path:
    """Six frames, two annotated: a red and a green region on white, and a blue one that Def.dat does not know."""
    film = root / "bear01"
    write_frames(film, [f"bear01_{i:04d}.jpg" for i in range(1, 7)])
    truth = np.full((48, 64, 3), 255, np.uint8)
    truth[:10], truth[10:20], truth[20:30] = RED, GREEN, BLUE
    for number in (1, 5):
        save(film / f"GroundTruth/bear01_{number:04d}_gt.ppm", truth)
        save(film / f"GroundTruth/bear01_{number:04d}_PROB_gt.ppm", np.zeros((48, 64, 3), np.uint8))
    labelled = [(n, f"bear01_{n + 1:04d}_gt.ppm", f"bear01_{n + 1:04d}.ppm") for n in (0, 4)]
    text = definition([code(WHITE), code(RED), code(GREEN)], labelled, 6)
    (film / "GroundTruth/bear01Def.dat").write_text(text)
    return film


def test_colours(tmp_path: Path) -> None:
    bear(tmp_path / "FBMS/Trainingset")
    (found,) = find_sequences([tmp_path / "FBMS"])
    assert (found.data, found.name) == ("FBMS", "bear01")
    assert found.annotated == [0, 4]
    assert len(found.frames) == 6
    mask = found.annotation(4).mask
    assert mask[:20].all(), "both regions are foreground"
    assert not mask[20:].any(), "an unknown colour is background"


def test_without_a_definition(tmp_path: Path) -> None:
    film = bear(tmp_path)
    (film / "GroundTruth/bear01Def.dat").unlink()
    (found,) = find_sequences([tmp_path])
    assert found.annotated == [0, 4]
    assert found.annotation(0).mask[:30].all(), "every colour but white"
    assert not found.annotation(0).mask[30:].any()


def test_grey_values_of_bms26(tmp_path: Path) -> None:
    """Frames are numbered without an underscore, masks with other padding; the definition lists frames as .ppm."""
    film = tmp_path / "Testset/tennis"
    write_frames(film, [f"tennis{i:03d}.jpg" for i in range(1, 5)])
    truth = np.zeros((48, 64), np.uint8)
    truth[:10], truth[10:20] = 85, 255
    save(film / "GroundTruth/tennis02.pgm", truth)
    (film / "GroundTruth/tennisDef.dat").write_text(definition([0, 85, 255], [(1, "tennis02.pgm", "tennis_02.ppm")], 4))
    (found,) = find_sequences([tmp_path], "fbms", split="test")
    assert found.annotated == [1]
    assert found.annotation(1).mask[:20].all()
    assert not found.annotation(1).mask[20:].any()


def test_background_that_is_not_black(tmp_path: Path) -> None:
    film = tmp_path / "cars1"
    write_frames(film, ["cars1_01.jpg"])
    truth = np.full((48, 64), 40, np.uint8)
    truth[:10] = 80
    save(film / "GroundTruth/cars1_01.pgm", truth)
    (film / "GroundTruth/cars1Def.dat").write_text(definition([40, 80], [(0, "cars1_01.pgm", "cars1_01.ppm")], 1))
    (found,) = find_sequences([tmp_path])
    assert found.annotation(0).mask[:10].all(), "the first region is the background"
    assert not found.annotation(0).mask[10:].any()


def test_what_is_refused(tmp_path: Path) -> None:
    film = bear(tmp_path / "Trainingset")
    with pytest.raises(ValueError, match="no Testset/SEQ/GroundTruth; split is train, test, or left out"):
        find_sequences([tmp_path], split="test")
    (film / "GroundTruth/bear01_0005_gt.ppm").unlink()
    with pytest.raises(
        ValueError, match=r"bear01Def.dat is no ground truth definition.*bear01_0005_gt.ppm is not there"
    ):
        find_sequences([tmp_path])
    (film / "GroundTruth/bear01Def.dat").write_text("Total number of regions:\nmany\n")
    with pytest.raises(ValueError, match="it labels no frames"):
        find_sequences([tmp_path])
