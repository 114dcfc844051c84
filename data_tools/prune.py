"""Which frames and clips are worth keeping, and why not (Pathak et al. 2017, section 5.1). Verdicts are stored; nothing is thrown away."""

from __future__ import annotations

import numpy as np
from pydantic import Field, model_validator

from data_tools.config import Config
from data_tools.sample import Box, MaskStatistics

THRESHOLD = 0.7  # a soft score above it is foreground: the trimap's upper bound, and what MaskStatistics promises
UNCERTAIN = 0.4  # from here to THRESHOLD a score is "don't care"
BORDER_BAND = 0.05  # of the shorter side: MaskStatistics.border looks at the pixels that are nearer to the edge
BOX_SCORE = 0.5  # boxes enclose what is above it


class Pruning(Config):
    """The rules. Shares are of a frame's pixels, in [0, 1]; verdicts have the names "small", "large", "border", "flat", "unsteady"."""

    min_foreground: float = Field(0.005, ge=0, le=1)  # below: "small". The paper's 0.10 would empty most real data
    max_foreground: float = Field(0.8, ge=0, le=1)  # above: "large" (the paper's)
    max_border: float = Field(
        0.10, ge=0, le=1
    )  # more of the border band than this is foreground: "border" (the paper's)
    min_flatness: float = Field(
        0.02, ge=0, le=1
    )  # a clip whose scores deviate less within a frame says nothing: "flat"
    min_consistency: float = Field(
        0.0, ge=0, le=1
    )  # a clip whose foreground overlaps less from frame to frame (mean IoU) is "unsteady"; 0: not asked
    min_kept: float = Field(0.5, ge=0, le=1)  # a clip is kept if at least this share of its frames is

    @model_validator(mode="after")
    def _ordered(self) -> Pruning:
        if self.min_foreground > self.max_foreground:
            raise ValueError(
                f"min_foreground {self.min_foreground} is larger than max_foreground {self.max_foreground}"
            )
        return self

    @classmethod
    def paper(cls) -> Pruning:
        """The published rule: 10 % to 80 % foreground, at most 10 % of the border band; it knows no flatness."""
        return cls(min_foreground=0.10, max_foreground=0.80, max_border=0.10, min_flatness=0.0)


def statistics(mask: np.ndarray) -> MaskStatistics:
    """What the rules look at.

    Args:
        mask: (T, h, w) soft scores: uint8 (score * 255) or float in [0, 1].
    Raises:
        ValueError: another shape, an empty mask, or scores outside [0, 1].
    """
    scores = _scores(mask)
    foreground = scores > THRESHOLD
    band = _border(*scores.shape[1:])
    uncertain = (scores >= UNCERTAIN) & ~foreground
    overlap = np.logical_and(foreground[1:], foreground[:-1]).sum((1, 2))
    union = np.logical_or(foreground[1:], foreground[:-1]).sum((1, 2))
    either = union > 0  # two empty frames neither agree nor disagree
    return MaskStatistics(
        foreground=_shares(foreground.mean((1, 2))),
        border=_shares(foreground[:, band].mean(1)),
        uncertain=_shares(uncertain.mean((1, 2))),
        flatness=round(float(scores.std((1, 2), dtype=np.float64).mean()), 6),
        consistency=round(float((overlap[either] / union[either]).mean()), 6) if either.any() else 0.0,
    )


def frame_verdicts(statistics: MaskStatistics, rules: Pruning) -> list[tuple[str, ...]]:
    """Per frame, why it would be pruned: any of "small", "large", "border"; empty where it would be kept."""
    verdicts = []
    for foreground, border in zip(statistics.foreground, statistics.border, strict=True):
        broken = {
            "small": foreground < rules.min_foreground,
            "large": foreground > rules.max_foreground,
            "border": border > rules.max_border,
        }
        verdicts.append(tuple(name for name, is_broken in broken.items() if is_broken))
    return verdicts


def keep(statistics: MaskStatistics, rules: Pruning) -> tuple[bool, ...]:
    """Per frame, would the rules keep it: `Metadata.keep`."""
    return tuple(not verdict for verdict in frame_verdicts(statistics, rules))


def clip_verdict(statistics: MaskStatistics, rules: Pruning) -> tuple[str, ...]:
    """Why the clip as a whole would be pruned: `Metadata.verdict`; empty where it would be kept.

    "flat" where its scores say nothing, "unsteady" where they jump from frame to frame; and, where fewer than `min_kept` of its
    frames pass, the reasons of those that fail, the most frequent first.
    """
    verdicts = frame_verdicts(statistics, rules)
    reasons: list[str] = ["flat"] if statistics.flatness < rules.min_flatness else []
    if len(verdicts) > 1 and statistics.consistency < rules.min_consistency:
        reasons.append("unsteady")
    kept = sum(not verdict for verdict in verdicts)
    if kept == 0 or kept < rules.min_kept * len(verdicts):
        failed = [name for verdict in verdicts for name in verdict]
        reasons += sorted(set(failed), key=lambda name: (-failed.count(name), name))
    return tuple(reasons)


def boxes(mask: np.ndarray) -> tuple[Box | None, ...]:
    """Per frame, the box of score > 0.5 as (x0, y0, x1, y1) in shares of width and height, None where there is none.

    Args:
        mask: (T, h, w) soft scores: uint8 (score * 255) or float in [0, 1].
    """
    height, width = mask.shape[1:]
    found: list[Box | None] = []
    for inside in _scores(mask) > BOX_SCORE:
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        if not rows.size:
            found.append(None)
            continue
        x0, x1 = columns[0] / width, (columns[-1] + 1) / width
        y0, y1 = rows[0] / height, (rows[-1] + 1) / height
        found.append((round(float(x0), 6), round(float(y0), 6), round(float(x1), 6), round(float(y1), 6)))
    return tuple(found)


def _scores(mask: np.ndarray) -> np.ndarray:
    if mask.ndim != 3 or not mask.size:
        raise ValueError(f"a mask must be (T, h, w) with at least one pixel, got {mask.shape}")
    if mask.dtype == np.uint8:
        return mask.astype(np.float32) / 255
    if not np.issubdtype(mask.dtype, np.floating):
        raise ValueError(f"a mask must be uint8 (score * 255) or float in [0, 1], got {mask.dtype}")
    if not (mask.min() >= 0 and mask.max() <= 1):  # written so that NaN fails too
        raise ValueError(f"scores must be in [0, 1], got {mask.min()} to {mask.max()}")
    return mask.astype(np.float32, copy=False)


def _border(height: int, width: int) -> np.ndarray:
    """bool (h, w): within the border band, which is never thinner than one pixel."""
    band = max(1, round(BORDER_BAND * min(height, width)))
    inside = np.zeros((height, width), dtype=bool)
    inside[band : height - band, band : width - band] = True
    return ~inside


def _shares(values: np.ndarray) -> tuple[float, ...]:
    return tuple(round(float(value), 6) for value in values)
