"""Guard against harmful updates: which loss is a spike, and what a row of skipped updates calls for. Pure logic, no collectives.

All ranks call it with the same numbers and so decide alike.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import fmean, median
from typing import Any, Literal

from fbm_dist.schema import Guard
from fbm_dist.training.distributed import agreed

Verdict = Literal["go on", "roll back"]
NOT_FINITE = "gradient not finite"  # why an update was skipped, as `Recovery.skipped` takes it
SPIKE = "loss spike"
FEWEST = 10  # accepted losses before anything is judged, whatever the window
NORMAL_MAD = 1.4826  # standard deviations of a normal distribution in one median absolute deviation (MAD)
NORMAL_MEAN_DEVIATION = 1.2533  # the same for the mean absolute deviation, which stands in where the MAD is 0
FLOOR = 1e-3  # of |median|: the least scale, so that a constant loss does not make a spike of every wiggle
LASTING = 10  # windows of applied updates after which a rollback has helped and counts no more


class SpikeGuard:
    """Judges one player's losses: a spike lies more than `spike` scales above the median of the last `window` accepted ones.

    The scale is 1.4826 * MAD, at least FLOOR * |median|. Where most losses are the same number (a hinge at rest) the MAD is 0 and
    1.2533 * mean absolute deviation takes its place (Iglewicz and Hoaglin 1993); where all are 0, nothing is a spike.

    Losses of skipped updates do not enter the window. So a loss that has really moved to a higher level stays a spike for good:
    it is `Recovery` that ends the row, by rollbacks and then by an error that says how to let the new level pass.
    """

    def __init__(self, config: Guard) -> None:
        self.config = config
        self._losses: deque[float] = deque(maxlen=config.window)

    def judge(self, loss: float) -> bool:
        """Whether the update of this loss must be skipped. Changes nothing.

        Args:
            loss: mean over the step's micro-batches and over the ranks; one that is not finite is always harmful.
        """
        return not math.isfinite(loss) or loss > self.limit()

    def accept(self, loss: float) -> None:
        """The update of this finite loss was applied."""
        assert math.isfinite(loss), "an update of such a loss cannot have been applied"
        self._losses.append(loss)

    def limit(self) -> float:
        """The highest loss that is no spike; infinite while there is too little to judge by, or with `spike` off."""
        losses = self._losses
        if self.config.spike is None or len(losses) < max(FEWEST, self.config.window // 2):
            return math.inf
        middle = median(losses)
        deviations = [abs(loss - middle) for loss in losses]
        spread = NORMAL_MAD * median(deviations) or NORMAL_MEAN_DEVIATION * fmean(deviations)
        scale = max(spread, FLOOR * abs(middle))
        return middle + self.config.spike * scale if scale > 0 else math.inf

    def state(self) -> dict[str, Any]:
        """For a checkpoint: plain values, exact through JSON."""
        return {"losses": list(self._losses)}

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `state`. Another `window` than then keeps the newest."""
        self._losses = deque(state["losses"], maxlen=self.config.window)


class Recovery:
    """Counts a run's skipped steps (a step is skipped if any player's update was) and says when it must roll back, or end.

    Its state belongs in every checkpoint and is restored when a run is started again, but not when it rolls back: a rollback
    that undid its own count would be repeated for ever. A rollback after which LASTING * window updates have been applied has
    helped and is forgotten: `max_rollbacks` bounds a run that does not come free, not one that runs for a month.
    """

    def __init__(self, config: Guard) -> None:
        self.config = config
        self.total = 0  # skipped steps of the whole run
        self.in_a_row = 0
        self.rollbacks = 0  # not yet forgotten
        self.since = 0  # updates applied since the last rollback
        self.weights_of = 0  # the step after which the present weights stood
        self.reasons: list[str] = []  # of the present row

    def applied(self, step: int) -> None:
        """Step number `step` (of the first: 1) updated every player."""
        self.in_a_row, self.weights_of = 0, step
        self.reasons.clear()
        self.since += 1
        if self.since >= LASTING * self.config.window:
            self.rollbacks = 0

    def skipped(self, step: int, reason: str) -> Verdict:
        """Step number `step` left out at least one player's update.

        Args:
            reason: NOT_FINITE or SPIKE.
        Returns:
            "roll back": go back to the weights and optimizer states of the last checkpoint, keep the data's position, and call
            `rolled_back`.
        Raises:
            ValueError: `max_rollbacks` rollbacks have not helped. Marked as agreed, since it is raised on every rank.
        """
        self.total += 1
        self.in_a_row += 1
        self.reasons.append(reason)
        if self.in_a_row < self.config.rollback_after:
            return "go on"
        if self.rollbacks >= self.config.max_rollbacks:
            raise agreed(self._message(step))
        return "roll back"

    def rolled_back(self, weights_of: int) -> None:
        """The weights are now those of the checkpoint of step `weights_of` (0: the first ones)."""
        self.rollbacks += 1
        self.since = self.in_a_row = 0
        self.reasons.clear()
        self.weights_of = weights_of

    def state(self) -> dict[str, Any]:
        """For a checkpoint: plain values, exact through JSON."""
        return {
            "total": self.total,
            "in_a_row": self.in_a_row,
            "rollbacks": self.rollbacks,
            "since": self.since,
            "weights_of": self.weights_of,
            "reasons": list(self.reasons),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        for name, value in state.items():
            setattr(self, name, list(value) if name == "reasons" else int(value))

    def _message(self, step: int) -> str:
        counts = ", ".join(f"{self.reasons.count(reason)} x {reason}" for reason in dict.fromkeys(self.reasons))
        tried = {0: "training.guard allows no rollback", 1: "1 rollback has not helped"}.get(
            self.rollbacks, f"{self.rollbacks} rollbacks have not helped"
        )
        spikes = " raise training.guard.spike if the loss has really moved, or" if SPIKE in self.reasons else ""
        return (
            f"step {step}: {self.in_a_row} updates in a row were skipped ({counts}) and {tried}; the weights are those of step "
            f"{self.weights_of};{spikes} lower optimizer.lr, set training.gradient_clipping or training.precision=fp32, "
            "or allow more by training.guard.max_rollbacks"
        )
