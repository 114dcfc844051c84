"""VSB100 in its own naming: a .mat a frame with several annotators."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from fbm_dist.evaluation.segmentation.folders.find import find_sequences
from tests.fbm_dist.evaluation.segmentation.drawn import save, write_frames


def annotated(path: Path, *labels: np.ndarray | None) -> None:
    """groundTruth: a cell an annotator; None: one who did not annotate this frame."""
    cells = np.empty((1, len(labels)), object)
    for i, own in enumerate(labels):
        cells[0, i] = np.zeros((0, 0)) if own is None else {"Segmentation": own, "Boundaries": own > 0}
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"groundTruth": cells})


def rows(*values: int) -> np.ndarray:
    """(48, 64): bands of 12 rows with these labels."""
    return np.repeat(np.array(values, np.int16), 12)[:, None].repeat(64, axis=1)


def motion(root: Path) -> Path:
    """Two annotated frames; three of four people annotated."""
    write_frames(root / "Images/arctic_kayak", ["image001.jpg", "image021.jpg"])
    truth = root / "Groundtruth/arctic_kayak"
    annotated(truth / "image001.mat", rows(1, 2, 0, -1), rows(1, 0, 0, -1), rows(3, 4, 0, -1), None)
    annotated(truth / "image021.mat", rows(1, 0, 0, 0))
    return root


def test_annotators_vote(tmp_path: Path) -> None:
    (found,) = find_sequences([motion(tmp_path / "Motion_test_fullres")])
    assert (found.data, found.name, found.annotated) == ("Motion_test_fullres", "arctic_kayak", [0, 1])
    first = found.annotation(0)
    assert first.mask[:24].all(), "two of three are more than half"
    assert not first.mask[24:].any()
    assert first.void is not None
    assert first.void[36:].all()
    assert not first.void[:36].any()
    assert found.annotation(1).mask.sum() == 12 * 64
    assert found.annotation(1).void is None


def test_complete_films_are_taken_where_they_lie_beside(tmp_path: Path) -> None:
    root = motion(tmp_path / "Motion_test_fullres")
    film = tmp_path / "Test/arctic_kayak"
    write_frames(film, [f"image{i:03d}.jpg" for i in range(1, 23)])
    (found,) = find_sequences([root])
    assert len(found.frames) == 22
    assert found.annotated == [0, 20]
    write_frames(film, [f"image{i:03d}.jpg" for i in range(1, 23)], (96, 128))
    (found,) = find_sequences([root])
    assert len(found.frames) == 2, "frames of another size do not fit the masks"


def test_masks_as_pictures(tmp_path: Path) -> None:
    write_frames(tmp_path / "Images/bear", ["image001.png", "image002.png"])
    save(tmp_path / "Groundtruth/bear/image002.png", rows(1, 2, 0, 0).astype(np.uint8))
    (found,) = find_sequences([tmp_path])
    assert found.annotated == [1]
    assert found.annotation(1).mask[:24].all()
    assert not found.annotation(1).mask[24:].any()


def test_the_general_archive_is_refused(tmp_path: Path) -> None:
    write_frames(tmp_path / "Images/bear", ["image001.jpg"])
    annotated(tmp_path / "Groundtruth/bear/image001.mat", rows(1, 2, 3, 4), rows(1, 1, 2, 2))
    with pytest.raises(
        ValueError, match="General archive of VSB100, which knows no foreground; give the Motion archive"
    ):
        find_sequences([tmp_path])


def test_what_else_is_refused(tmp_path: Path) -> None:
    root = motion(tmp_path / "Motion")
    with pytest.raises(ValueError, match=r"no annotated sequences \(give .*Motion\?\)"):
        find_sequences([tmp_path])
    with pytest.raises(ValueError, match="VSB100 has no lists"):
        find_sequences([root], split="test")
    (root / "Groundtruth/arctic_kayak/image001.mat").write_bytes(b"no matrix")
    with pytest.raises(ValueError, match=r"image001.mat is no ground truth of VSB100"):
        find_sequences([root])
