"""Baselines that know nothing of objects: all foreground, the centre box, and residual optical flow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from data_tools.flow import OpticalFlow, grey_frames
from data_tools.frames import resized, scaled
from fbm_dist.evaluation.segmentation.folders.sequence import Sequence
from fbm_dist.evaluation.segmentation.methods.method import Method, Score


class AllForeground(Method):
    """Every pixel is foreground: its precision is the share of true foreground."""

    stored = False

    def __init__(self) -> None:
        super().__init__("all foreground")

    def settings(self) -> dict[str, Any]:
        """None."""
        return {}

    def scores(self, sequence: Sequence) -> Iterator[Score]:
        """Ones."""
        for index in sequence.annotated:
            yield np.ones(sequence.size(index), np.float32)


class CentreBox(Method):
    """Foreground is the middle half of each side."""

    stored = False

    def __init__(self) -> None:
        super().__init__("centre box")

    def settings(self) -> dict[str, Any]:
        """None."""
        return {}

    def scores(self, sequence: Sequence) -> Iterator[Score]:
        """One in the box, zero around it."""
        for index in sequence.annotated:
            yield centre_box(*sequence.size(index))


class ResidualFlow(Method):
    """What moves otherwise than most of the frame, by optical flow (DIS, medium) to the next frame; from the last to the one before."""

    stored = False

    def __init__(self, working_side: int) -> None:
        super().__init__("residual flow")
        self.working_side = working_side

    def settings(self) -> dict[str, Any]:
        """The size of the frames."""
        return {"working_side": self.working_side}

    def scores(self, sequence: Sequence) -> Iterator[Score]:
        """Share of the frame's largest residual: above one half is foreground. Zeros for a film of one frame."""
        flow = OpticalFlow("medium")
        for index in sequence.annotated:
            other = index + 1 if index + 1 < len(sequence.frames) else index - 1
            frame = small_frame(sequence, index, self.working_side)
            if other < 0:
                yield np.zeros(frame.shape[:2], np.float32)
            else:
                pair = np.stack([frame, small_frame(sequence, other, self.working_side)])
                yield residual(grey_frames(pair, pair.shape[1:3]), flow)


def centre_box(height: int, width: int) -> Float32[np.ndarray, "h w"]:
    """1 in the middle half of each side, 0 around it."""
    out = np.zeros((height, width), np.float32)
    out[height // 4 : height - height // 4, width // 4 : width - width // 4] = 1
    return out


def residual(grey: UInt8[np.ndarray, "2 h w"], flow: OpticalFlow) -> Float32[np.ndarray, "h w"]:
    """|flow - its median vector| from the first frame to the second, divided by its maximum; zeros where nothing moves."""
    field = flow(grey[0], grey[1])
    size = np.linalg.norm(field - np.median(field, axis=(0, 1)), axis=-1)
    largest = size.max()
    return (size / largest if largest > 0 else np.zeros_like(size)).astype(np.float32)


def small_frame(sequence: Sequence, index: int, side: int) -> UInt8[np.ndarray, "h w 3"]:
    """A frame with its shorter side at most `side`: what `prepare` computes masks on."""
    frame = sequence.frame(index)
    height, width = frame.shape[:2]
    return resized(frame, scaled(height, width, side))
