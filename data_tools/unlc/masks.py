"""uNLC from end to end: the frames of a shot in, soft foreground masks out (Pathak et al. 2017, section 5.1)."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8

from data_tools.flow import flow_size
from data_tools.unlc.appearance import appearance_saliency
from data_tools.unlc.config import UNLC
from data_tools.unlc.descriptors import region_descriptors
from data_tools.unlc.graph import consensus_graph
from data_tools.unlc.pieces import Frames, Opinion, Scores, in_pieces, working_size
from data_tools.unlc.saliency import motion_saliency, normalise
from data_tools.unlc.scores import demote_small_blobs, guided_filter
from data_tools.unlc.superpixels import region_means, superpixels
from data_tools.unlc.voting import consensus


def motion_masks(
    frames: np.ndarray,
    settings: UNLC = UNLC(),  # noqa: B008  (frozen)
    opinion: Opinion | None = None,
) -> Scores:
    """Soft foreground scores in [0, 1] of the frames of one shot, at their own size.

    Zeros mean that nothing moves of its own: also for a single frame, which has no motion. Deterministic. Working memory is bounded by
    `max_frames`, however long the shot is.

    Args:
        frames: uint8 (T, H, W, 3), RGB, one shot. Cut films first: votes would cross the cut.
        settings: `UNLC()` or `UNLC.paper()`.
        opinion: a network's scores, which vote beside motion (Pathak et al. 2017, section 7: "combining with motion cues"). Where nothing
            moves, they are the result.
    Raises:
        ValueError: not uint8 (T, H, W, 3), or empty, or an opinion of other frames.
    """
    return in_pieces(frames, settings, _masks_of_piece, opinion)


def _masks_of_piece(frames: Frames, settings: UNLC, opinion: Opinion | None) -> Scores:
    """The method itself, on frames that are few enough."""
    height, width = frames.shape[1:3]
    small = working_frames(frames, settings.working_side)
    votes = first_votes(small, settings)
    if not votes.any():
        if opinion is None:
            return np.zeros((len(frames), height, width), np.float32)
        return np.stack([_enlarged(one, (height, width)) for one in opinion.scores])
    regions = [superpixels(frame, settings.superpixels) for frame in small]
    counts = [int(labels.max()) + 1 for labels in regions]
    means = _means_of(votes, regions, counts)
    if opinion is not None:
        means = (1 - opinion.share) * means + opinion.share * _means_of(opinion.scores, regions, counts)
    descriptors = [region_descriptors(frame, labels) for frame, labels in zip(small, regions, strict=True)]
    graph = consensus_graph(descriptors, settings.graph)
    starts = np.cumsum([0, *counts[:-1]])
    agreed = consensus(means.astype(np.float32), graph, starts, settings.voting)
    out = np.empty((len(frames), height, width), dtype=np.float32)
    for i, labels in enumerate(regions):
        score = _refined(agreed[starts[i] : starts[i] + counts[i]][labels], small[i], settings)
        out[i] = _enlarged(score, (height, width))
    return np.clip(out, 0, 1, out=out)


def _means_of(
    pictures: Float32[np.ndarray, "t y x"], regions: list[Int64[np.ndarray, "h w"]], counts: list[int]
) -> Float64[np.ndarray, "k"]:
    """Means over the regions of all frames, in the frames' order."""
    triples = zip(regions, pictures, counts, strict=True)
    return np.concatenate([region_means(labels, _enlarged(one, labels.shape), count) for labels, one, count in triples])


def _enlarged(picture: Float32[np.ndarray, "y x"], size: tuple[int, ...]) -> Float32[np.ndarray, "h w"]:
    return cv2.resize(picture, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)


def first_votes(frames: Frames, settings: UNLC) -> Float32[np.ndarray, "t y x"]:
    """Who votes before anyone is asked, in [0, 1]: motion saliency, or appearance where too few frames have a dominant motion."""
    saliency, share = motion_saliency(frames, settings.motion)
    if len(frames) > 1 and share < settings.motion.min_dominant:
        height, width = frames.shape[1:3]
        size = flow_size(height, width, settings.motion.size, settings.motion.aspect)
        saliency = appearance_saliency(frames, size)
        return normalise(saliency, settings.motion.model_copy(update={"floor": 0.0}))
    return normalise(saliency, settings.motion)


def working_frames(frames: Frames, longer_side: int) -> UInt8[np.ndarray, "t y x 3"]:
    """The frames at the size that is worked on: the longer side at most `longer_side`, no side below 32 pixels."""
    height, width = frames.shape[1:3]
    rows, columns = working_size(height, width, longer_side)
    if (rows, columns) == (height, width):
        return frames
    method = cv2.INTER_AREA if rows * columns < height * width else cv2.INTER_LINEAR
    return np.stack([cv2.resize(frame, (columns, rows), interpolation=method) for frame in frames])


def _refined(score: Float32[np.ndarray, "h w"], frame: np.ndarray, settings: UNLC) -> Float32[np.ndarray, "h w"]:
    score = demote_small_blobs(score.astype(np.float32), settings.blob_threshold, settings.blob_size)
    if not settings.guided_radius:
        return score
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    return guided_filter(score, grey, settings.guided_radius, settings.guided_epsilon)
