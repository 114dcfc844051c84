"""SegTrack v1 and v2 in their own naming."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fbm_dist.evaluation.segmentation.folders.find import find_sequences
from tests.fbm_dist.evaluation.segmentation.drawn import save, write_frames


def smoothed(*rows: int) -> np.ndarray:
    """(48, 64, 3) as drawing programs save masks: white rows, a grey one around them."""
    out = np.zeros((48, 64, 3), np.uint8)
    out[rows[0] : rows[1]] = 255
    out[rows[1]] = 60
    return out


def second_version(root: Path) -> Path:
    write_frames(root / "JPEGImages/frog", ["frog_00000.png", "frog_00001.png"])
    write_frames(root / "JPEGImages/cheetah", ["cheetah_00000.bmp", "cheetah_00001.bmp"])
    for i in range(2):
        save(root / f"GroundTruth/frog/frog_0000{i}.png", smoothed(4, 10))
        save(root / f"GroundTruth/cheetah/1/cheetah_0000{i}.bmp", smoothed(4, 10))
        save(root / f"GroundTruth/cheetah/2/cheetah_0000{i}.png", smoothed(20, 30))
    (root / "ImageSets").mkdir()
    (root / "ImageSets/all.txt").write_text("*cheetah\n*frog\n")
    (root / "ImageSets/frog.txt").write_text("frog/\nfrog_00000\nfrog_00001\n")
    return root


def test_second_version(tmp_path: Path) -> None:
    root = second_version(tmp_path / "SegTrackv2")
    cheetah, frog = find_sequences([root], split="all")
    assert (cheetah.name, frog.name) == ("cheetah", "frog")
    assert cheetah.annotated == frog.annotated == [0, 1]
    expected = np.zeros((48, 64), bool)
    expected[4:10] = True
    assert (frog.annotation(0).mask == expected).all(), "grey at the outline is below one half"
    expected[20:30] = True
    assert (cheetah.annotation(1).mask == expected).all(), "both objects"


def test_a_frame_counts_where_all_objects_are_annotated(tmp_path: Path) -> None:
    root = second_version(tmp_path)
    (root / "GroundTruth/cheetah/2/cheetah_00001.png").unlink()
    (found,) = find_sequences([root], names=["cheetah"])
    assert found.annotated == [0]


def test_first_version_goes_by_order(tmp_path: Path) -> None:
    """Masks have other names than frames, and are counted without padding: 0 ... 10."""
    film = tmp_path / "girl"
    write_frames(film, [f"5117-8_70{161 + i}.bmp" for i in range(11)])
    for i in range(11):
        save(film / f"ground-truth/{i}.bmp", smoothed(i, i + 5))
    (found,) = find_sequences([tmp_path])
    assert found.annotated == list(range(11))
    for index in (2, 10):
        assert found.annotation(index).mask[:, 0].nonzero()[0].tolist() == list(range(index, index + 5))
    (film / "ground-truth/10.bmp").unlink()
    with pytest.raises(ValueError, match="10 masks for 11 frames"):
        find_sequences([tmp_path])
