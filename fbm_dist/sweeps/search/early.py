"""Tune's ASHA, as a sweep needs it: it remembers the trials of earlier sessions, and ends no trial at its last step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from fbm_dist.sweeps.config import Sweep
from fbm_dist.sweeps.metric import is_finite
from fbm_dist.training.monitoring.metrics import NAME, read_lines


@dataclass(frozen=True)
class _Past:
    """As much of a Tune trial as ASHA looks at."""

    trial_id: str


class Early(ASHAScheduler):  # type: ignore[misc]
    """Asynchronous successive halving over training steps, one bracket."""

    def __init__(self, sweep: Sweep, max_steps: int) -> None:
        assert sweep.asha is not None, "asked for"
        self.end = max_steps
        super().__init__(
            time_attr="step",
            metric="value",
            mode=sweep.metric.mode,
            max_t=max_steps,
            grace_period=min(sweep.asha.grace, max_steps),
            reduction_factor=sweep.asha.reduction,
            stop_last_trials=False,
        )

    def remember(self, name: str, lines: Iterable[dict[str, Any]], metric: str) -> None:
        """The lines of a trial that ended in an earlier session: later ones are held against it."""
        for line in lines:
            if is_finite(line.get(metric)):
                past: Any = _Past(name)
                self._brackets[0].on_result(past, line["step"], self._metric_op * line[metric])

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Whether the trial goes on."""
        verdict = super().on_trial_result(tune_controller, trial, result)
        if result.get("step", 0) >= self.end or result.get("done"):
            return str(TrialScheduler.CONTINUE)  # its encoder is about to be kept
        return str(verdict)


def early_of(sweep: Sweep, steps: int | None, ended: Iterable[tuple[str, Any]]) -> Early | None:
    """ASHA, if the config asks for it.

    Args:
        steps: of a whole trial.
        ended: (name, folder) of the trials that are over.
    """
    if sweep.asha is None:
        return None
    total = sweep.asha.max_steps or steps
    assert total is not None, "checked before"
    early = Early(sweep, total)
    for name, folder in ended:
        early.remember(name, read_lines(folder / NAME), sweep.metric.name)
    return early
