"""VSB100 (Galasso et al. 2013) as distributed: several people annotated every twentieth frame or so.

    Motion_test_fullres/Images/SEQ/image001.jpg         or another archive: Motion or Non-rigid, train or test, full or half resolution
    Motion_test_fullres/Groundtruth/SEQ/image001.mat    groundTruth: a cell an annotator, {Segmentation: label of each pixel}, or empty
    Test/SEQ/image001.jpg                               beside the archive: all frames (the films are a download of their own)

Labels above 0 are what moves (the Motion subtask), 0 is the rest, and what is below 0 the benchmark's own evaluation leaves
out of its statistics. A pixel is foreground where more than half of the annotators who judged it say so; that is this project's
rule, the benchmark knows none (it compares with each annotator). In the General archive every pixel belongs to a region: it says
nothing about foreground, and is refused. Masks as pictures (.png, anything above 0) in the place of .mat are read too.

Source: lmb.informatik.uni-freiburg.de/resources/datasets/vsb, the benchmark's match_segmentations (labels below 0), and public
readers of General_test_fullres/{Images,Groundtruth}.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from scipy.io import loadmat

from data_tools.sources.films import pictures_in
from fbm_dist.evaluation.segmentation.folders.sequence import (
    Annotation,
    Sequence,
    any_object,
    frames_in,
    masks_in,
    matched,
)

LOOKED_FOR = "Images/SEQ/imageNNN.jpg + Groundtruth/SEQ/imageNNN.mat"
TRUTH = "groundtruth"  # Groundtruth or GroundTruth
FILMS = ("Test", "Train")  # folders of the complete films
LOOKED_AT = 5  # films of which a frame is looked at to tell the General archive


def here(folder: Path) -> bool:
    """Is the folder laid out so?"""
    return (folder / "Images").is_dir() and _truth(folder) is not None


def read(folder: Path, split: str | None) -> list[Sequence]:
    """All sequences of one archive of the benchmark.

    Raises:
        ValueError: a list was asked for; frames are missing; the archive is the General one.
    """
    if split is not None:
        raise ValueError(f"{folder}: VSB100 has no lists; leave split out, train and test are folders of their own")
    truth = _truth(folder)
    assert truth is not None, "here() said so"
    films = [path for path in sorted(truth.iterdir()) if path.is_dir()]
    looked_at = [path for film in films[:LOOKED_AT] for path in sorted(film.glob("*.mat"))[:1]]
    if looked_at and all(_all_regions(path) for path in looked_at):
        raise ValueError(
            f"{folder}: every pixel belongs to a region, as in the General archive of VSB100, which knows no foreground; "
            "give the Motion archive"
        )
    return [_sequence(folder, film) for film in films]


def _truth(folder: Path) -> Path | None:
    return next((path for path in sorted(folder.iterdir()) if path.name.lower() == TRUTH and path.is_dir()), None)


def _sequence(folder: Path, truth: Path) -> Sequence:
    frames = frames_in(folder / "Images" / truth.name)
    readers: dict[str, Callable[[], Annotation]] = {
        path.stem: functools.partial(any_object, (path,)) for path in masks_in(truth)
    }
    readers |= {path.stem: functools.partial(_voted, path) for path in truth.glob("*.mat")}
    if not readers:
        raise ValueError(f"{truth}: no .mat and no .png; give the data set as it was unpacked")
    for film in (folder.parent / name / truth.name for name in FILMS):
        if film.is_dir() and _fits(film, frames):
            frames = frames_in(film)
            break
    return Sequence(folder.name, truth.name, frames, matched(frames, readers))


def _fits(film: Path, frames: tuple[Path, ...]) -> bool:
    """Has the complete film these frames, in their size?"""
    complete = {path.stem: path for path in pictures_in(film)}
    if not {frame.stem for frame in frames} <= complete.keys():
        return False
    pictures = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in (frames[0], complete[frames[0].stem])]
    return pictures[0] is not None and pictures[1] is not None and pictures[0].shape == pictures[1].shape


def _voted(path: Path) -> Annotation:
    """The majority of a frame's annotators; void where none of them judged."""
    labels = _labels(path)
    judged = np.sum([own >= 0 for own in labels], axis=0)
    votes = np.sum([own > 0 for own in labels], axis=0)
    void = judged == 0
    return Annotation(2 * votes > judged, void if void.any() else None)


def _all_regions(path: Path) -> bool:
    """Has everyone who annotated the frame put each pixel into one of several regions?"""
    labels = _labels(path)
    return all((own > 0).all() for own in labels) and any(len(np.unique(own)) > 1 for own in labels)


def _labels(path: Path) -> list[np.ndarray]:
    """(h, w) of each annotator of a frame, whatever the benchmark's .mat has beside them."""
    try:
        cells = loadmat(path)["groundTruth"].ravel()
        labels = [np.asarray(cell[0, 0]["Segmentation"], np.int64) for cell in cells if cell.size]
    except Exception as error:  # whatever SciPy makes of a damaged file, or of one of another kind
        raise ValueError(f"{path} is no ground truth of VSB100: {' '.join(str(error).split())}") from None
    if not labels or len({own.shape for own in labels}) > 1:
        raise ValueError(f"{path}: no annotator, or annotators of several sizes; unpack the data set again")
    return labels
