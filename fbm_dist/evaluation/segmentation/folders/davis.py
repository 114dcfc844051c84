"""DAVIS 2016 and 2017 as distributed, folders laid out like them, and SEQ/frames + SEQ/masks.

    JPEGImages/480p/SEQ/00000.jpg       or Full-Resolution, 1080p, or no folder of a resolution
    Annotations/480p/SEQ/00000.png      2016: 0 and 255; 2017: a palette, number of the object, 255 where nobody judged
    Annotations_unsupervised/480p/...   taken in place of Annotations where it is there (2017, unsupervised task)
    ImageSets/480p/val.txt              2016: a line a frame, "/JPEGImages/480p/SEQ/00000.jpg /Annotations/..."
    ImageSets/2017/val.txt              2017: a line a sequence

Source: the official readers, github.com/davisvideochallenge/davis2017-evaluation (davis2017/davis.py) and fperazzi/davis.
"""

from __future__ import annotations

import functools
from pathlib import Path

from fbm_dist.evaluation.segmentation.folders.sequence import Sequence, any_object, frames_in, masks_in, matched

LOOKED_FOR = "JPEGImages/480p/SEQ + Annotations/480p/SEQ, or SEQ/frames + SEQ/masks"
ANNOTATIONS = ("Annotations_unsupervised", "Annotations")
RESOLUTIONS = ("480p", "Full-Resolution", "1080p", ".")


def here(folder: Path) -> bool:
    """Is the folder laid out so?"""
    return bool(_pairs(folder)) or any((folder / name).is_dir() for name in ANNOTATIONS)


def read(folder: Path, split: str | None) -> list[Sequence]:
    """All sequences of the folder, or those of a list of ImageSets.

    Raises:
        ValueError: frames or masks are missing, or there is no such list.
    """
    if pairs := _pairs(folder):
        if split is not None:
            raise ValueError(f"{folder}: SEQ/frames + SEQ/masks have no lists; leave split out and name sequences")
        return [_sequence(folder, path.name, path / "frames", path / "masks") for path in pairs]
    images, annotations = _roots(folder)
    wanted = None if split is None else listed(folder, split)
    # the 2017 package has frames of test sequences, whose masks were never given out
    names = sorted(path.name for path in images.iterdir() if (annotations / path.name).is_dir())
    if wanted is not None:
        missing = sorted(wanted - {*names})
        if missing:
            raise ValueError(
                f"{folder}: no frames and masks of {', '.join(missing[:5])}, which the list {split} names; unpack all of it"
            )
        names = sorted(wanted)
    return [_sequence(folder, name, images / name, annotations / name) for name in names]


def listed(folder: Path, split: str) -> set[str]:
    """The sequences of ImageSets/**/SPLIT.txt.

    Raises:
        ValueError: none, or several of this name.
    """
    root = folder / "ImageSets"
    exact = root / f"{split}.txt"
    found = [exact] if exact.is_file() else sorted(root.glob(f"*/{split}.txt"))
    if len(found) != 1:
        there = ", ".join(str(path.relative_to(root).with_suffix("")) for path in sorted(root.rglob("*.txt"))[:12])
        said = "several lists" if found else "no list"
        raise ValueError(f"{root}: {said} called {split!r}; split is one of: {there or 'nothing, leave it out'}")
    lines = [line.split()[0] for line in found[0].read_text(encoding="utf-8").splitlines() if line.strip()]
    # "*SEQ" is SegTrack v2's; a path to a frame is DAVIS 2016's
    return {Path(line).parent.name if "/" in line else line.lstrip("*") for line in lines}


def _pairs(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob("*/masks") if path.is_dir() and path.with_name("frames").is_dir())


def _roots(folder: Path) -> tuple[Path, Path]:
    """The folders of frames and of annotations, of the first resolution that both have."""
    for resolution in RESOLUTIONS:
        for name in ANNOTATIONS:
            images, annotations = folder / "JPEGImages" / resolution, folder / name / resolution
            if annotations.is_dir() and images.is_dir():
                return images, annotations
    raise ValueError(f"{folder}: no JPEGImages beside Annotations in one resolution; expected {LOOKED_FOR}")


def _sequence(folder: Path, name: str, images: Path, annotations: Path) -> Sequence:
    frames = frames_in(images)
    masks = {path.stem: functools.partial(any_object, (path,)) for path in masks_in(annotations)}
    return Sequence(folder.name, name, frames, matched(frames, masks))
