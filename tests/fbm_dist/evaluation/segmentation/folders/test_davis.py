"""DAVIS 2016 and 2017 in their own naming, and SEQ/frames + SEQ/masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fbm_dist.evaluation.segmentation.folders.find import find_sequences
from tests.fbm_dist.evaluation.segmentation.drawn import save, scene, write_film, write_frames

NAMES = [f"{i:05d}.jpg" for i in range(3)]


def davis_2016(root: Path) -> Path:
    for name in ("bear", "surf"):
        write_frames(root / "JPEGImages/480p" / name, NAMES)
        for index in range(3):
            save(root / f"Annotations/480p/{name}/{index:05d}.png", scene(index)[1].astype(np.uint8) * 255)
    lists = root / "ImageSets/480p"
    lists.mkdir(parents=True)
    for split, name in (("train", "bear"), ("val", "surf")):
        lines = [f"/JPEGImages/480p/{name}/{i:05d}.jpg /Annotations/480p/{name}/{i:05d}.png " for i in range(3)]
        (lists / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return root


def test_davis_2016(tmp_path: Path) -> None:
    bear, surf = find_sequences([davis_2016(tmp_path / "DAVIS")])
    assert (str(bear), str(surf)) == ("DAVIS/bear", "DAVIS/surf")
    assert [path.name for path in bear.frames] == NAMES
    assert bear.annotated == [0, 1, 2]
    for index in range(3):
        found = bear.annotation(index)
        assert (found.mask == scene(index)[1]).all()
        assert found.void is None
    assert bear.frame(1).shape == (48, 64, 3)


def test_lists_name_sequences(tmp_path: Path) -> None:
    root = davis_2016(tmp_path / "DAVIS")
    assert [one.name for one in find_sequences([root], split="val")] == ["surf"]
    assert [one.name for one in find_sequences([root], split="480p/train")] == ["bear"]
    with pytest.raises(ValueError, match=r"no list called 'test'; split is one of: 480p/train, 480p/val"):
        find_sequences([root], split="test")
    (root / "ImageSets/2017").mkdir()
    (root / "ImageSets/2017/val.txt").write_text("bear\nhorse\n")
    with pytest.raises(ValueError, match="several lists called 'val'"):
        find_sequences([root], split="val")
    with pytest.raises(ValueError, match=r"no frames and masks of horse, which the list 2017/val names"):
        find_sequences([root], split="2017/val")


def test_davis_2017_has_objects_in_a_palette(tmp_path: Path) -> None:
    root = tmp_path / "DAVIS"
    write_frames(root / "JPEGImages/480p/bike", NAMES[:1])
    write_frames(root / "JPEGImages/480p/secret", NAMES[:1])  # of a test set: its masks were never given out
    numbers = np.zeros((48, 64), np.uint8)
    numbers[:10], numbers[10:20], numbers[20:30] = 1, 2, 255
    save(root / "Annotations/480p/bike/00000.png", np.zeros((48, 64), np.uint8), palette=True)
    save(root / "Annotations_unsupervised/480p/bike/00000.png", numbers, palette=True)
    (bike,) = find_sequences([root], "davis")
    found = bike.annotation(0)
    assert found.mask[:20].all()
    assert not found.mask[20:].any()
    assert found.void is not None
    assert found.void[20:30].all()
    assert found.void.sum() == 10 * 64


def test_frames_beside_masks(tmp_path: Path) -> None:
    masks = write_film(tmp_path / "films/hike")
    (hike,) = find_sequences([tmp_path / "films"], max_frames=4)
    assert hike.annotated == [0, 1, 2, 3]
    assert len(hike.frames) == 4
    assert (hike.annotation(3).mask == masks[3]).all()
    with pytest.raises(ValueError, match="have no lists"):
        find_sequences([tmp_path / "films"], split="val")


def test_masks_of_another_size_are_refused(tmp_path: Path) -> None:
    write_film(tmp_path / "hike", 2)
    save(tmp_path / "hike/masks/00001.png", np.zeros((24, 32), bool))
    (hike,) = find_sequences([tmp_path])
    hike.annotation(0)
    with pytest.raises(ValueError, match=r"the mask of 00001.png is 32x24 pixels and the frame 64x48"):
        hike.annotation(1)


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    write_film(tmp_path / "hike", 2)
    (tmp_path / "hike/masks/00000.png").write_bytes(b"no picture")
    (tmp_path / "hike/frames/00001.png").write_bytes(b"no picture")
    (hike,) = find_sequences([tmp_path])
    with pytest.raises(ValueError, match=r"masks/00000.png is no readable mask"):
        hike.annotation(0)
    for read in (hike.frame, hike.size):
        with pytest.raises(ValueError, match=r"frames/00001.png is no readable picture"):
            read(1)
