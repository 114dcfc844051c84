"""Validation: the losses on clips that are held out of training, which weights are the best by them, and when to stop early."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fbm_dist.objectives.objective import Objective
from fbm_dist.schema import Data, Filter, Run, Validation
from fbm_dist.training.distributed import World, agreed
from fbm_dist.training.monitoring.reading import idle, looking_on, precision, read_spread
from fbm_dist.training.session import Check

PREFIX = "validation/"


def training_filter(data: Data, validation: Validation | None) -> Data:
    """`data` without the groups that are held out for validation, also where they are in data sets mixed in. Done twice it changes nothing.

    Raises:
        ValueError: `data.filter` holds out another share of its own.
    """
    if validation is None or not validation.hold_out:
        return data
    mix = tuple(
        portion.model_copy(update={"filter": _held(portion.filter, "the filter of data.mix", validation, out=False)})
        for portion in data.mix
    )
    return data.model_copy(update={"filter": _held(data.filter, "data.filter", validation, out=False), "mix": mix})


def validation_data(data: Data, validation: Validation) -> Data:
    """What validates: the held-out groups of `validation.filter`, or of `data.filter`; all of the first where nothing is held out.

    Raises:
        ValueError: no clips are named: neither a share to hold out nor a filter.
    """
    if validation.hold_out:
        given, key = (validation.filter, "validation.filter") if validation.filter else (data.filter, "data.filter")
        return data.model_copy(update={"filter": _held(given, key, validation, out=True)})
    if validation.filter is None:
        raise ValueError("validation.hold_out is 0 and there is no validation.filter; give one of them")
    return data.model_copy(update={"filter": validation.filter})


def _held(given: Filter, key: str, validation: Validation, *, out: bool) -> Filter:
    if given.held_out or given.hold_out not in (0, validation.hold_out):
        raise ValueError(
            f"{key} and validation.hold_out both hold out groups; set validation.hold_out=0 and let {key} and "
            "validation.filter say all (hold_out=SHARE for training, with held_out=true for validation)"
        )
    return given.model_copy(update={"hold_out": validation.hold_out, "held_out": out})


def check_validation(run: Run, players: Sequence[str] = ("model",)) -> None:
    """Open both parts of the data, without decoding a frame: what is wrong shall end a run at its start.

    Raises:
        ValueError: in one line: nothing on one side, a clip on both, or a metric that no objective of several players has.
    """
    from fbm_dist.data.index.index import Index
    from fbm_dist.data.index.selection import select

    validation = run.validation
    if validation is None:
        return
    if len(players) > 1 and validation.metric.removeprefix(PREFIX) == "loss":
        choices = " or ".join(f"{player}/loss" for player in players)
        raise ValueError(f"validation.metric=loss: each player has a loss of its own; give {choices}")
    training = training_filter(run.data, validation)
    index = Index.open(run.data.path, run.data.snapshot)
    try:
        kept = [select(index, training.filter, training.clip).kept]
        for portion in training.mix:
            other = Index.open(portion.path, portion.snapshot)
            if other.digest == index.digest:  # the same films once more
                kept.append(select(other, portion.filter, training.clip, both_sides=False).kept)
    except ValueError as error:
        raise ValueError(f"validation: {error}") from None
    try:
        looked_at = validation_data(run.data, validation)
        held = select(index, looked_at.filter, looked_at.clip.plain).kept
    except ValueError as error:
        raise ValueError(f"validation: {error}".replace("data.filter", "validation.filter")) from None
    shared = max(_shared(rows, held) for rows in kept)
    if shared:
        raise ValueError(
            f"{shared} of {len(held)} validation clips are trained on as well: leave them out of data.filter and data.mix, "
            "or give validation.hold_out a share"
        )


def _shared(kept: np.ndarray, held: np.ndarray) -> int:
    """Row numbers that are in both ascending files, a part at a time."""
    count = 0
    for start in range(0, len(held), 1 << 20):
        part = held[start : start + (1 << 20)]
        place = np.searchsorted(kept, part)
        inside = place < len(kept)
        count += int((kept[place[inside]] == part[inside]).sum())
    return count


def validation_check(run: Run) -> Check:
    """Every `validation.every` steps: the mean over the held-out clips of all losses and terms, `validation/loss` and so on.

    `run.data` may be what it was or what `training_filter` made of it. The clips come in the run's micro-batches, the same
    ones for any number of ranks and at every look. Several players: `validation/PLAYER/loss`, as the training's log names them.
    """
    validation = run.validation
    assert validation is not None, "the run has no validation section"
    data = validation_data(run.data, validation)

    def look(objective: Objective, world: World, touch: Callable[[], None] = idle) -> dict[str, float]:
        with world.agreed():
            share = _sums(run, data, validation.max_clips, objective, world, touch)
        shares = world.gather(share)
        clips = sum(number for number, _ in shares)
        if not clips:
            raise agreed(
                f"{data.path}: no validation clip could be decoded; see: python -m data_tools verify {data.path}"
            )
        names = next(sums for number, sums in shares if number)
        return {
            f"{PREFIX}{name}": math.fsum(sums.get(name, 0.0) for _, sums in shares) / clips for name in names
        }  # fsum: the order of the ranks has no part in it

    return Check(validation.every, look)


def _sums(
    run: Run, data: Data, limit: int | None, objective: Objective, world: World, touch: Callable[[], None]
) -> tuple[int, dict[str, float]]:
    """This rank's clips, and its losses and terms times their clips. They stay on the device until the end: no batch waits for it."""
    clips = 0
    sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), dtype=torch.float64, device=world.device))
    with looking_on(run, world):
        for clip in read_spread(data, limit, run.training.micro_batch, world):
            touch()
            for player in objective.players:
                prefix = f"{player}/" if len(objective.players) > 1 else ""
                with precision(run, world):
                    loss = objective(player, clip)
                for name, value in {"loss": loss.total, **loss.terms}.items():
                    sums[prefix + name] += value.double() * len(clip)
            clips += len(clip)
        return clips, {name: float(value) for name, value in sums.items()}


class EarlyStopping:
    """Which validation was the best, and how many in a row have not been better."""

    def __init__(self, validation: Validation) -> None:
        self.validation = validation
        self.best: float | None = None
        self.best_step: int | None = None
        self.bad = 0  # validations in a row without improvement
        self.improved = False  # by the last one

    @property
    def stopped(self) -> bool:
        """Patience is at its end; without patience never."""
        patience = self.validation.patience
        return patience is not None and self.bad >= patience

    def due(self, figures: Mapping[str, float]) -> bool:
        """There are figures of a validation among these."""
        return any(name.startswith(PREFIX) for name in figures)

    def see(self, step: int, figures: Mapping[str, float]) -> bool:
        """Count the validation of `step`; returns whether to stop. A figure that is not finite is no improvement.

        Raises:
            ValueError: the metric is not among the figures.
        """
        metric = self._metric
        if PREFIX + metric not in figures:
            names = ", ".join(sorted(name.removeprefix(PREFIX) for name in figures if name.startswith(PREFIX)))
            raise agreed(f"validation.metric={metric}: validation gives no such figure; choose of {names or 'none'}")
        value = figures[PREFIX + metric]
        before = math.inf if self.best is None else self.best - self.validation.min_improvement
        self.improved = math.isfinite(value) and value < before
        if self.improved:
            self.best, self.best_step, self.bad = value, step, 0
        else:
            self.bad += 1
        return self.stopped

    def state(self) -> dict[str, Any]:
        """For a checkpoint's manifest; JSON."""
        return {"best": self.best, "best_step": self.best_step, "bad": self.bad, "metric": self._metric}

    def restore(self, state: Mapping[str, Any]) -> bool:
        """The inverse of `state`; returns whether that was of the same metric: else all begins anew."""
        same = state["metric"] == self._metric
        if same:
            self.best, self.best_step, self.bad = state["best"], state["best_step"], state["bad"]
        self.improved = False
        return same

    @property
    def _metric(self) -> str:
        return self.validation.metric.removeprefix(PREFIX)
