"""One sequence: what every method finds in it, measured against the truth, and a frame to look at."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from fbm_dist.evaluation.segmentation.folders.sequence import Sequence
from fbm_dist.evaluation.segmentation.methods.method import Method
from fbm_dist.evaluation.segmentation.metrics import Frames, frames, measure
from fbm_dist.evaluation.segmentation.stored import scores_of

SHOWN_WIDTH = 240  # pixels of a tile on the sheet


@dataclass(frozen=True)
class Look:
    """One frame of a sequence, made small."""

    frame: UInt8[np.ndarray, "h w 3"]
    truth: Bool[np.ndarray, "h w"]
    found: dict[str, Bool[np.ndarray, "h w"]] = field(default_factory=dict)  # by row; of repetitions the first


@dataclass(frozen=True)
class Measured:
    """A sequence.

    Attributes:
        found: by row, one a repetition.
        look: its middle annotated frame.
    """

    data: str
    name: str
    found: dict[str, list[Frames]]
    look: Look


def measure_sequence(sequence: Sequence, methods: list[Method], threshold: float, output: Path) -> Measured:
    """Every method on the annotated frames of a sequence, at the size of the frames.

    Args:
        threshold: foreground is a score above it.
    Raises:
        ValueError: a file cannot be read, frames differ in size, a mask has another size than its frame, or a method cannot do it.
    """
    sequence.check_size()
    annotated = sequence.annotated
    middle = annotated[len(annotated) // 2]
    picture = sequence.frame(middle)
    small = _small(*picture.shape[:2])
    look = Look(cv2.resize(picture, small, interpolation=cv2.INTER_AREA), np.zeros(small[::-1], bool))
    found: dict[str, list[Frames]] = {}
    truths = [sequence.annotation(index) for index in annotated]
    look.truth[:] = _shrunk(truths[annotated.index(middle)].mask, small)
    for method in methods:
        measured = []
        for index, truth, score in zip(annotated, truths, scores_of(method, sequence, output), strict=True):
            mask = at_size(score, truth.mask.shape, threshold)
            measured.append(measure(mask, truth.mask, truth.void))
            if index == middle:
                look.found.setdefault(method.row, _shrunk(mask, small))
        found.setdefault(method.row, []).append(frames(measured))
    return Measured(sequence.data, sequence.name, found, look)


def at_size(score: UInt8[np.ndarray, "y x"], size: tuple[int, ...], threshold: float) -> Bool[np.ndarray, "h w"]:
    """Where a score * 255 is above the threshold, at the size of the frame; linear between the score's own pixels.

    The threshold is rounded as scores were: one that is exactly the threshold is not above it.
    """
    if score.shape != size:
        score = cv2.resize(score, size[::-1], interpolation=cv2.INTER_LINEAR)
    return score > np.rint(threshold * 255)


def _small(height: int, width: int) -> tuple[int, int]:
    """(width, height) of a tile."""
    return SHOWN_WIDTH, max(1, round(height * SHOWN_WIDTH / width))


def _shrunk(mask: Bool[np.ndarray, "h w"], small: tuple[int, int]) -> Bool[np.ndarray, "y x"]:
    return cv2.resize(mask.astype(np.uint8), small, interpolation=cv2.INTER_NEAREST) > 0
