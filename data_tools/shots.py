"""Cut a film where the scene changes, in one pass over small thumbnails: adaptive threshold, or kernel temporal segmentation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from data_tools.schema import Shots

THUMBNAIL = 64  # longer side in pixels
BINS = 40  # per channel of the kernel detector's histograms


@runtime_checkable  # the tests check types at run time
class Detector(Protocol):
    """Decides frame by frame, a bounded number of frames late, where shots begin."""

    def push(self, image: UInt8[np.ndarray, "h w 3"]) -> list[bool]:
        """One more RGB frame -> for the frames settled by it, in order: does a shot begin there?"""

    def finish(self) -> list[bool]:
        """The film has ended: the same for the frames not settled yet."""


def detector(settings: Shots) -> Detector:
    """A fresh detector for one film."""
    kinds: dict[str, Callable[[Shots], Detector]] = {"adaptive": Adaptive, "kernel": Kernel, "none": OneShot}
    return kinds[settings.detector](settings)


def thumbnail(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "a b 3"]:
    """The frame at up to `THUMBNAIL` px, averaged over areas: noise and small motion count little.

    It is made smaller by a whole factor, which OpenCV does ten times faster than by any other.
    """
    height, width = image.shape[:2]
    factor = -(-max(height, width) // THUMBNAIL)
    rows, columns = height // factor, width // factor
    if not rows or not columns:
        return cv2.resize(image, (max(1, columns), max(1, rows)), interpolation=cv2.INTER_AREA)
    return cv2.resize(image[: rows * factor, : columns * factor], (columns, rows), interpolation=cv2.INTER_AREA)


class OneShot:
    """No cuts: the whole film is one shot."""

    def __init__(self, settings: Shots) -> None:
        self._first = True

    def push(self, image: UInt8[np.ndarray, "h w 3"]) -> list[bool]:
        """See `Detector`."""
        first, self._first = self._first, False
        return [first]

    def finish(self) -> list[bool]:
        """See `Detector`."""
        return []


class Adaptive:
    """A cut is where the change between two frames stands out from the changes around it (as PySceneDetect's AdaptiveDetector).

    Change: mean absolute difference of hue, saturation and value, 0 to 255. It must be `threshold` times the mean of
    the `window` changes on either side, and at least `min_change`, so that neither fast motion nor noise is a cut.
    """

    def __init__(self, settings: Shots) -> None:
        self._settings = settings
        self._before: np.ndarray | None = None
        self._changes: list[float] = []  # of the frames from `_base` on
        self._base = 0
        self._next = 0  # frame whose decision is due
        self._length = 0  # of the shot so far

    def push(self, image: UInt8[np.ndarray, "h w 3"]) -> list[bool]:
        """See `Detector`."""
        hsv = cv2.cvtColor(thumbnail(image), cv2.COLOR_RGB2HSV)
        if self._before is None or self._before.shape != hsv.shape:  # another picture size is cut elsewhere
            change = 0.0
        else:
            hue, saturation, value = cv2.split(cv2.absdiff(hsv, self._before))
            hue = cv2.min(hue, 180 - hue)  # hue is a circle
            change = (cv2.mean(hue)[0] + cv2.mean(saturation)[0] + cv2.mean(value)[0]) / 3
        self._before = hsv
        self._changes.append(change)
        last = self._base + len(self._changes) - 1
        return [self._decide()] if self._next + self._settings.window <= last else []

    def finish(self) -> list[bool]:
        """See `Detector`."""
        return [self._decide() for _ in range(self._base + len(self._changes) - self._next)]

    def _decide(self) -> bool:
        at, window = self._next - self._base, self._settings.window
        change = self._changes[at]
        around = self._changes[max(0, at - window) : at] + self._changes[at + 1 : at + 1 + window]
        usual = sum(around) / len(around) if around else 0.0
        stands_out = change >= max(self._settings.min_change, self._settings.threshold * usual)
        begins = self._length == 0 or (stands_out and self._length >= self._settings.min_frames)
        self._length = 1 if begins else self._length + 1
        self._next += 1
        spent = max(0, at + 1 - window)
        del self._changes[:spent]
        self._base += spent
        return begins


class Kernel:
    """Kernel temporal segmentation, as the uNLC pipeline has it, in windows so that time and memory stay bounded.

    Features: RGB and Lab histograms of `BINS` bins a channel, each summing to 1; linear kernel. Within a window of N frames
    m cuts are placed so that the scatter within segments is least (dynamic programming), and m minimises
    scatter / N + v m / (2 N) (ln(N / m) + 1), with v = `kernel_penalty`. Cuts in the first three quarters of a window are taken.
    """

    def __init__(self, settings: Shots) -> None:
        self._settings = settings
        self._features: list[np.ndarray] = []  # from the frame at which the open shot, or the window, begins
        self._decided = 0  # of them, already given out
        self._started = False

    def push(self, image: UInt8[np.ndarray, "h w 3"]) -> list[bool]:
        """See `Detector`."""
        self._features.append(histogram(thumbnail(image)))
        if len(self._features) < self._settings.kernel_window:
            return []
        return self._settle(3 * len(self._features) // 4)

    def finish(self) -> list[bool]:
        """See `Detector`."""
        return self._settle(len(self._features)) if self._features else []

    def _settle(self, until: int) -> list[bool]:
        """Decide the frames before `until`; the next window begins at the last cut, or half a window on."""
        limit = self._settings.min_frames
        cuts = [c for c in kernel_cuts(np.stack(self._features), self._settings) if self._decided <= c < until]
        begins = [i in cuts for i in range(self._decided, until)]
        if not self._started and begins:
            begins[0] = self._started = True
        keep_from = cuts[-1] if cuts else max(0, until - max(limit, self._settings.kernel_window // 2))
        self._features = self._features[keep_from:]
        self._decided = until - keep_from
        return begins


def histogram(small: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, " d"]:
    """RGB and Lab histograms, 6 x `BINS` numbers; each channel sums to 1."""
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB)  # 8 bit: L, a and b all on 0..255
    channels = np.concatenate([small.reshape(-1, 3), lab.reshape(-1, 3)], axis=1).astype(np.int64)
    bins = channels * BINS // 256 + np.arange(6) * BINS
    return np.bincount(bins.ravel(), minlength=6 * BINS) / len(channels)


def kernel_cuts(features: Float[np.ndarray, "n d"], settings: Shots) -> list[int]:
    """Frames of a window at which segments begin (the first one left out), by kernel temporal segmentation."""
    count, shortest = len(features), settings.min_frames
    most = min(settings.kernel_max_cuts, count // max(shortest, 1) - 1)
    if most < 1:
        return []
    scatter = _scatters(features)
    begin, end = np.meshgrid(np.arange(count), np.arange(count), indexing="ij")
    scatter[end - begin + 1 < shortest] = np.inf
    cost = np.full((most + 1, count + 1), np.inf)  # [cuts, frames covered]
    back = np.zeros((most + 1, count + 1), dtype=np.int64)
    cost[0, 1:] = scatter[0]
    for cuts in range(1, most + 1):
        # the last segment covers frames [i, j): cost of what stands before i plus its own
        totals = cost[cuts - 1, :count, None] + scatter
        back[cuts, 1:] = totals.argmin(axis=0)
        cost[cuts, 1:] = totals.min(axis=0)
    numbers = np.arange(1, most + 1)
    penalty = settings.kernel_penalty * numbers / (2 * count) * (np.log(count / numbers) + 1)
    best = int(np.argmin(cost[:, count] / count + np.concatenate([[0.0], penalty])))
    found, at = [], count
    for cuts in range(best, 0, -1):
        at = int(back[cuts, at])
        found.append(at)
    return found[::-1]


def _scatters(features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n n"]:
    """[i, j]: sum of squared distances of frames i..j from their mean, for a linear kernel."""
    kernel = features @ features.T
    count = len(features)
    diagonal = np.concatenate([[0.0], np.cumsum(np.diag(kernel))])
    block = np.zeros((count + 1, count + 1))
    block[1:, 1:] = kernel.cumsum(axis=0).cumsum(axis=1)
    i, j = np.arange(count)[:, None], np.arange(1, count + 1)[None, :]
    length = np.maximum(j - i, 1)
    within = block[j, j] - block[i, j] - block[j, i] + block[i, i]
    return np.where(j > i, diagonal[j] - diagonal[i] - within / length, np.inf)
