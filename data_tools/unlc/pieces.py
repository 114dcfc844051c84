"""Shots of any length by a method that takes at most `max_frames` at once (Pathak et al.'s published code; windows are this project's)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8

from data_tools.unlc.config import UNLC
from data_tools.unlc.descriptors import PATCH

Frames = UInt8[np.ndarray, "t h w 3"]
Scores = Float32[np.ndarray, "t h w"]


class Opinion(NamedTuple):
    """What somebody else, a trained network, thinks of the same frames."""

    scores: Float32[np.ndarray, "t y x"]  # in [0, 1], in any resolution
    share: float  # of the first votes, in [0, 1]; the rest is motion's

    def of(self, which: slice | np.ndarray) -> Opinion:
        """Of some of the frames."""
        return Opinion(self.scores[which], self.share)


Method = Callable[[np.ndarray, UNLC, Opinion | None], np.ndarray]
MIN_SIDE = 2 * (PATCH + 1)  # smaller frames are enlarged: descriptors look at 15 pixels


def in_pieces(frames: np.ndarray, settings: UNLC, method: Method, opinion: Opinion | None = None) -> Scores:
    """What `method` gives for a shot, which it is shown in pieces of at most `max_frames` where it is longer.

    Args:
        frames: uint8 (T, H, W, 3), one shot.
        method: scores (t, h, w), float32, of frames that are few enough; it is given the opinion of them, if there is one.
    Raises:
        ValueError: not uint8 (T, H, W, 3), or empty, or an opinion of other frames.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not frames.size:
        raise ValueError(
            f"frames must be uint8 (T, H, W, 3) with at least one pixel, got {frames.dtype} {frames.shape}"
        )
    if opinion is not None and (opinion.scores.ndim != 3 or len(opinion.scores) != len(frames)):
        raise ValueError(f"the opinion's scores are {opinion.scores.shape}; they must be ({len(frames)}, y, x)")
    if len(frames) <= settings.max_frames:
        return method(frames, settings, opinion)
    if settings.long_shots == "decimate":
        return _decimated(frames, settings, method, opinion)
    return _windowed(frames, settings, method, opinion)


def working_size(height: int, width: int, longer_side: int) -> tuple[int, int]:
    """(height, width) that is worked on: the longer side at most `longer_side`, no side below 32 pixels."""
    scale = min(1.0, longer_side / max(height, width))
    return max(MIN_SIDE, round(height * scale)), max(MIN_SIDE, round(width * scale))


def _windowed(frames: Frames, settings: UNLC, method: Method, opinion: Opinion | None) -> Scores:
    """Windows of at most `max_frames`, evenly spread; scores fade from one to the next over the frames that they share."""
    num_frames, size = len(frames), settings.max_frames
    number = -(-(num_frames - settings.overlap) // (size - settings.overlap))
    starts = np.linspace(0, num_frames - size, number).round().astype(int)
    out = np.zeros(frames.shape[:3], dtype=np.float32)
    end = 0
    for start in starts:
        which = slice(start, start + size)
        piece = method(frames[which], settings, opinion and opinion.of(which))
        shared = max(0, end - start)
        fade = (np.arange(1, shared + 1, dtype=np.float32) / (shared + 1))[:, None, None]
        out[start:end] = (1 - fade) * out[start:end] + fade * piece[:shared]
        out[start + shared : start + size] = piece[shared:]
        end = start + size
    return out


def _decimated(frames: Frames, settings: UNLC, method: Method, opinion: Opinion | None) -> Scores:
    """Every (T // max_frames + 1)-th frame and the last, as in the original; the frames between are interpolated linearly."""
    step = len(frames) // settings.max_frames + 1
    chosen = np.unique(np.append(np.arange(0, len(frames), step), len(frames) - 1))
    known = method(frames[chosen], settings, opinion and opinion.of(chosen))
    out = np.empty(frames.shape[:3], dtype=np.float32)
    for i in range(len(frames)):
        after = int(np.searchsorted(chosen, i))
        before = max(0, after - 1) if chosen[after] != i else after
        share = (i - chosen[before]) / max(1, chosen[after] - chosen[before])
        out[i] = (1 - share) * known[before] + share * known[after]
    return out
