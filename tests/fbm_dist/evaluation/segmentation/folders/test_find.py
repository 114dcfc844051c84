"""Which data set a folder holds; several folders; what is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from fbm_dist.evaluation.segmentation.folders.find import find_sequences
from tests.fbm_dist.evaluation.segmentation.drawn import write_film


def test_several_folders_of_one_name(tmp_path: Path) -> None:
    for place in ("a/films", "b/films"):
        write_film(tmp_path / place / "hike", 2)
    found = find_sequences([tmp_path / "a/films", tmp_path / "b/films"])
    assert [str(one) for one in found] == ["films/hike", "films-2/hike"]


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere: no such folder"):
        find_sequences([tmp_path / "nowhere"])
    looked_for = r"no annotated sequences; looked for: JPEGImages/480p.*; Trainingset.*; Images/SEQ.*; JPEGImages/SEQ"
    with pytest.raises(ValueError, match=looked_for):
        find_sequences([tmp_path])
    write_film(tmp_path / "films/hike", 2)
    with pytest.raises(ValueError, match=r"\(give .*films\?\)"):
        find_sequences([tmp_path])
    with pytest.raises(ValueError, match="looked for: Trainingset"):
        find_sequences([tmp_path / "films"], "fbms")


def test_names_and_frames_are_chosen(tmp_path: Path) -> None:
    for name in ("hike", "surf"):
        write_film(tmp_path / name, 3)
    assert [one.name for one in find_sequences([tmp_path], names=["surf"])] == ["surf"]
    with pytest.raises(ValueError, match="no sequence swim; there are hike, surf"):
        find_sequences([tmp_path], names=["swim"])
    for path in tmp_path.glob("*/masks/00000.png"):
        path.unlink()
    assert [one.annotated for one in find_sequences([tmp_path], max_frames=2)] == [[1], [1]]
    with pytest.raises(ValueError, match="no frame has a mask among the first 1 frames"):
        find_sequences([tmp_path], max_frames=1)
