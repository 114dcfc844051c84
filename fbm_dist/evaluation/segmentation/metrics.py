"""How well masks fit the truth: J and F of DAVIS (Perazzi et al. 2016, section 5), and one pooled confusion matrix (Pathak et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int
from skimage.morphology import disk

BOUND = (
    0.008  # of the frame's diagonal: how far apart two outlines may be and still match (bound_th of the official code)
)
GOOD = 0.5  # J or F above it counts for the recall of a sequence
BINS = 4  # a sequence is cut into quarters for its decay

Mask = Bool[np.ndarray, "h w"]


@dataclass(frozen=True)
class Frames:
    """What was measured on n frames of one sequence, in order.

    Attributes:
        counts: pixels of each frame: hits, false alarms, misses.
        share: predicted foreground, of all pixels of the frame.
        boundary: F of each frame.
    """

    counts: Int[np.ndarray, "n 3"]
    share: Float[np.ndarray, " n"]
    boundary: Float[np.ndarray, " n"]

    @property
    def iou(self) -> Float[np.ndarray, " n"]:
        """J: intersection over union; 1 where the union is empty."""
        return _share(self.counts, self.counts.sum(1))

    @property
    def precision(self) -> Float[np.ndarray, " n"]:
        """Share of the predicted foreground that is true. Nothing predicted: 1 where there was nothing to find, else 0."""
        return _share(self.counts, self.counts[:, 0] + self.counts[:, 1])

    @property
    def recall(self) -> Float[np.ndarray, " n"]:
        """Share of the true foreground that was predicted. Nothing true: 1 where nothing was predicted, else 0."""
        return _share(self.counts, self.counts[:, 0] + self.counts[:, 2])

    def pooled(self, kept: tuple[float, float] | None = None) -> Int[np.ndarray, " 3"]:
        """Hits, false alarms and misses of all frames together.

        Args:
            kept: frames whose predicted share is outside (low, high] are skipped, as in the evaluation of the published uNLC code
                (2 % and 70 % there); None: all frames count.
        """
        if kept is None:
            return self.counts.sum(0)
        return self.counts[self.kept(*kept)].sum(0)

    def kept(self, low: float, high: float) -> Bool[np.ndarray, " n"]:
        """Which frames have a predicted share in (low, high]."""
        return (self.share > low) & (self.share <= high)


@dataclass(frozen=True)
class Statistics:
    """Of J or F over the frames of a sequence (Perazzi et al. 2016, section 5.2)."""

    mean: float
    recall: float  # share of the frames above 0.5
    decay: float  # mean of the first quarter minus that of the last: what gets lost on the way


def measure(found: Mask, truth: Mask, void: Mask | None = None) -> tuple[tuple[int, int, int], float, float]:
    """One frame: (hits, false alarms, misses) in pixels, predicted share of the frame, F.

    Pixels are counted here and not by scikit-learn, which says the same a hundred times slower (its labels may be anything).

    Args:
        void: pixels that nobody judged: they are background in both masks, as in the code of DAVIS 2017.
    """
    share = float(found.mean())
    if void is not None:
        found, truth = found & ~void, truth & ~void
    hits = int(np.count_nonzero(found & truth))
    counts = hits, int(np.count_nonzero(found)) - hits, int(np.count_nonzero(truth)) - hits
    return counts, share, boundary_f(found, truth)


def frames(measured: list[tuple[tuple[int, int, int], float, float]]) -> Frames:
    """What `measure` said of the frames of a sequence."""
    counts, share, boundary = zip(*measured, strict=True)
    return Frames(np.array(counts, np.int64), np.array(share, float), np.array(boundary, float))


def boundary_f(found: Mask, truth: Mask) -> float:
    """F of the two outlines in [0, 1]: harmonic mean of the shares of each that lie near the other (Perazzi et al. 2016, section 5.1).

    Near: within 0.008 of the diagonal, rounded up to whole pixels. The bipartite matching of the definition is approximated by
    dilating the outlines with a disk, as the official code does (davis2017-evaluation, metrics.py: f_measure). An outline is
    missed fully, precision 1, where nothing was predicted; likewise recall 1 where nothing is true; two empty masks agree: 1.
    """
    reach = int(np.ceil(BOUND * np.hypot(*truth.shape)))
    ours, theirs = outline(found), outline(truth)
    num_ours, num_theirs = np.count_nonzero(ours), np.count_nonzero(theirs)
    if not num_ours or not num_theirs:
        return float(num_ours == num_theirs)  # 2 * 1 * 0 / (1 + 0) where one of them has an outline
    around = disk(reach).astype(np.uint8)
    near_theirs, near_ours = (cv2.dilate(line.astype(np.uint8), around) > 0 for line in (theirs, ours))
    precision = np.count_nonzero(ours & near_theirs) / num_ours
    recall = np.count_nonzero(theirs & near_ours) / num_theirs
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def outline(mask: Mask) -> Mask:
    """The boundary of a mask, one pixel wide, half a pixel towards the origin (`seg2bmap` of the official code).

    A pixel is on it where it differs from its right, lower or lower right neighbour; the last row looks to the right alone,
    the last column down alone, and the last pixel is never on it.
    """
    right, below, across = np.zeros_like(mask), np.zeros_like(mask), np.zeros_like(mask)
    right[:, :-1] = mask[:, 1:]
    below[:-1] = mask[1:]
    across[:-1, :-1] = mask[1:, 1:]
    line = (mask ^ right) | (mask ^ below) | (mask ^ across)
    line[-1] = mask[-1] ^ right[-1]
    line[:, -1] = mask[:, -1] ^ below[:, -1]
    line[-1, -1] = False
    return line


def statistics(values: Float[np.ndarray, " n"]) -> Statistics:
    """Mean, recall and decay of J or F over the frames of a sequence; the quarters share a frame (`db_statistics` of DAVIS 2017).

    All frames count: unsupervised methods are given none of them.
    """
    edges = np.round(np.linspace(1, len(values), BINS + 1) + 1e-10).astype(int) - 1
    first, *_, last = (values[a : b + 1].mean() for a, b in pairwise(edges))
    return Statistics(float(values.mean()), float((values > GOOD).mean()), float(first - last))


def ratios(counts: Float[np.ndarray, "*any 3"] | Int[np.ndarray, "*any 3"]) -> Float[np.ndarray, "*any 3"]:
    """IoU, precision and recall of pooled (hits, false alarms, misses); NaN where there is nothing to divide by.

    Pathak et al. report these three of the foreground: 13.1, 15.4, 45.8 and 24.8, 29.9, 59.3 are each of one matrix, since
    1 / IoU = 1 / precision + 1 / recall - 1.
    """
    hits, alarms, misses = np.moveaxis(np.asarray(counts, float), -1, 0)
    parts = np.stack([hits + alarms + misses, hits + alarms, hits + misses], -1)
    return np.divide(hits[..., None], parts, out=np.full(parts.shape, np.nan), where=parts > 0)


def _share(counts: Int[np.ndarray, "n 3"], of: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Hits of `of`; where that is nothing, 1 if there was nothing to be found and nothing was, else 0."""
    nothing = (counts.sum(1) == 0).astype(float)
    return np.divide(counts[:, 0], of, out=nothing, where=of > 0)
