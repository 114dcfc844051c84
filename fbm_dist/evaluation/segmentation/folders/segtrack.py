"""SegTrack v1 (Tsai et al. 2010) and v2 (Li et al. 2013) as distributed.

    v2: JPEGImages/SEQ/SEQ_00000.png             frames, .png or .bmp
        GroundTruth/SEQ/SEQ_00000.png            one object; or GroundTruth/SEQ/1/..., /2/...: an object a folder, .png or .bmp
        ImageSets/all.txt                        "*SEQ", a line a sequence
    v1: SEQ/*.png or *.bmp                       frames
        SEQ/ground-truth/* or SEQ/ground_truth/* as many masks, named otherwise (frame chasedeer_frame_0001.bmp, mask chasedeer_00000.png)

Any object is foreground; outlines are smoothed, so a pixel counts from one half of white on.

Source: readers of the distributed files in public code: SegTrack and SegTrack2 of tensorbay's opendataset, and a data set
over the ImageSets of v2.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

from data_tools.sources.films import pictures_in
from fbm_dist.evaluation.segmentation.folders.davis import listed
from fbm_dist.evaluation.segmentation.folders.sequence import (
    HALF,
    Annotation,
    Sequence,
    any_object,
    frames_in,
    masks_in,
    matched,
)

LOOKED_FOR = "JPEGImages/SEQ + GroundTruth/SEQ (v2), or SEQ/ground-truth (v1)"
TRUTHS = ("ground-truth", "ground_truth")


def here(folder: Path) -> bool:
    """Is the folder laid out so?"""
    second = (folder / "JPEGImages").is_dir() and (folder / "GroundTruth").is_dir()
    return second or bool(_first_version(folder))


def read(folder: Path, split: str | None) -> list[Sequence]:
    """All sequences of the folder; of v2, or those of a list of ImageSets.

    Raises:
        ValueError: frames or masks are missing, or there is no such list.
    """
    films = _first_version(folder)
    if films:
        if split is not None:
            raise ValueError(f"{folder}: SegTrack v1 has no lists; leave split out and name sequences")
        return [_by_order(folder, film) for film in films]
    names = {path.name for path in (folder / "GroundTruth").iterdir() if path.is_dir()}
    if split is not None:
        names = listed(folder, split)
    return [_by_name(folder, name) for name in sorted(names)]


def _first_version(folder: Path) -> list[Path]:
    return sorted({path.parent for name in TRUTHS for path in folder.glob(f"*/{name}") if path.is_dir()})


def _by_name(folder: Path, name: str) -> Sequence:
    images, truth = folder / "JPEGImages" / name, folder / "GroundTruth" / name
    for path in (images, truth):
        if not path.is_dir():
            raise ValueError(f"{path} is not there; unpack all of SegTrack v2")
    frames = frames_in(images)
    objects = sorted(path for path in truth.iterdir() if path.is_dir()) or [truth]
    files: dict[str, list[Path]] = {}
    for one in objects:
        for path in masks_in(one):
            files.setdefault(path.stem, []).append(path)
    readers: dict[str, Callable[[], Annotation]] = {
        stem: functools.partial(any_object, tuple(own), HALF) for stem, own in files.items() if len(own) == len(objects)
    }
    return Sequence(folder.name, name, frames, matched(frames, readers))


def _by_order(folder: Path, film: Path) -> Sequence:
    frames = frames_in(film)
    truth = next(film / name for name in TRUTHS if (film / name).is_dir())
    masks = [Path(str(path)) for path in pictures_in(truth)]
    if len(masks) != len(frames):
        raise ValueError(f"{truth}: {len(masks)} masks for {len(frames)} frames; SegTrack v1 has one a frame")
    readers: dict[int, Callable[[], Annotation]] = {
        index: functools.partial(any_object, (path,), HALF) for index, path in enumerate(masks)
    }
    return Sequence(folder.name, film.name, frames, readers)
