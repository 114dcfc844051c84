"""The learning rate as a pure function of the step, so that resuming has no scheduler state to restore."""

from __future__ import annotations

import math

from fbm_dist.schema import Schedule


def learning_rate(schedule: Schedule, peak: float, step: int, total_steps: int) -> float:
    """The rate of update number `step`, counted from 0, of `total_steps`.

    Warm-up: peak * (step + 1) / warmup_steps, so that no update has rate 0 and the last one of the warm-up has the peak.
    Then, with s = step - warmup_steps:
        constant: peak
        cosine: from peak to floor * peak over the remaining steps
        step: peak * gamma ** (s // every), as the FBM code's staircase
        exponential: peak * gamma ** (s / every)
        piecewise: peak * the share of the last milestone at or before s, peak before the first; as tables in papers have it
    """
    if step < schedule.warmup_steps:
        return peak * (step + 1) / schedule.warmup_steps
    since = step - schedule.warmup_steps
    if schedule.decay == "cosine":
        progress = min(1.0, since / max(1, total_steps - schedule.warmup_steps))
        return peak * (schedule.floor + (1 - schedule.floor) * 0.5 * (1 + math.cos(math.pi * progress)))
    if schedule.decay == "step":
        return peak * schedule.gamma ** (since // schedule.every)
    if schedule.decay == "exponential":
        return peak * schedule.gamma ** (since / schedule.every)
    if schedule.decay == "piecewise":
        return peak * max((m for m in schedule.milestones if m[0] <= since), default=(0, 1.0))[1]
    return peak
