"""figure.png and .svg: the metric against every swept number (Redondo-Cabrera and Lopez-Sastre, 2018, Figure 4: against the margin)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from matplotlib.axes import Axes

from data_tools.places import atomic
from fbm_dist.evaluation.report.figure import canvas
from fbm_dist.sweeps.config import Sweep
from fbm_dist.sweeps.metric import is_finite
from fbm_dist.sweeps.record import Record, Trial
from fbm_dist.sweeps.runs import shown
from fbm_dist.sweeps.search.space import Dimension, Grid, LogUniform, RandInt, short_names

SEED = "run.seed"  # repeats of the same values: no axis of its own
MOST_CURVES = 6
MOST_PANELS = 6
FAR = 20.0  # a grid of positive numbers whose ends are this many times apart is shown on a logarithmic axis


def draw(sweep: Sweep, record: Record, folder: Path) -> list[Path]:
    """Write both files; none while there is nothing to show."""
    shown_trials = [t for t in record.trials if t.status in ("finished", "stopped") and t.metric is not None]
    axes_keys = [key for key in sweep.space if key != SEED and _numbers(shown_trials, key)][:MOST_PANELS]
    if not axes_keys:
        return []
    figure = canvas(1.5 + 4.5 * len(axes_keys), 4.2)
    panels = figure.subplots(1, len(axes_keys), squeeze=False)[0]
    names = short_names(tuple(sweep.space))
    for axes, key in zip(panels, axes_keys, strict=True):
        panel(axes, sweep, record, shown_trials, key, names)
    found = []
    for kind in ("png", "svg"):
        path = folder / f"figure.{kind}"
        with atomic(path) as file:
            figure.savefig(file, format=kind, dpi=130)
        found.append(path)
    return found


def panel(
    axes: Axes, sweep: Sweep, record: Record, trials: Sequence[Trial], key: str, names: Mapping[str, str]
) -> None:
    """The metric against one key: a dot a trial, hollow where ASHA ended it; lines join the means of values that were listed."""
    hue = hue_of(sweep, trials, key)
    curves: dict[str, list[Trial]] = defaultdict(list)
    for trial in trials:
        if is_finite(trial.values[key]):
            curves[shown(trial.values[hue]) if hue else ""].append(trial)
    for i, (name, of) in enumerate(sorted(curves.items(), key=lambda item: _order(item[0]))):
        label = f"{names[hue]}={name}" if hue else None
        done = [trial for trial in of if trial.status == "finished"]
        early = [trial for trial in of if trial.status == "stopped"]
        axes.plot([t.values[key] for t in done], [_height(t) for t in done], "o", color=f"C{i}", label=label)
        axes.plot([t.values[key] for t in early], [_height(t) for t in early], "o", color=f"C{i}", fillstyle="none")
        if listed(sweep.space[key]):
            means = {x: fmean([_height(t) for t in done if t.values[key] == x]) for x in {t.values[key] for t in done}}
            axes.plot(sorted(means), [means[x] for x in sorted(means)], color=f"C{i}")
    best = record.best
    if best is not None and is_finite(best.values.get(key)):
        axes.plot([best.values[key]], [_height(best)], "*", color="black", markersize=12, label="best")
    if logarithmic(sweep.space[key], [t.values[key] for t in trials if is_finite(t.values[key])]):
        axes.set_xscale("log")
    axes.set_xlabel(names[key])
    axes.set_ylabel(sweep.metric.name)
    axes.legend(fontsize="small")


def hue_of(sweep: Sweep, trials: Sequence[Trial], key: str) -> str | None:
    """The key whose values get a curve each: one of few values, text rather than numbers."""
    others = [k for k in sweep.space if k not in (key, SEED) and listed(sweep.space[k])]
    few = [k for k in others if 1 < len({shown(t.values[k]) for t in trials}) <= MOST_CURVES]
    words = [k for k in few if not all(is_finite(t.values[k]) for t in trials)]
    return next(iter([*words, *few]), None)


def listed(dimension: Dimension) -> bool:
    """Its values come again and again."""
    return isinstance(dimension, Grid | RandInt) or hasattr(dimension, "choice") or hasattr(dimension, "quniform")


def logarithmic(dimension: Dimension, values: Sequence[float]) -> bool:
    """Whether equal factors shall be equal lengths."""
    if isinstance(dimension, LogUniform):
        return True
    return bool(values) and min(values) > 0 and max(values) / min(values) >= FAR


def _height(trial: Trial) -> float:
    assert trial.metric is not None, "only such trials are drawn"
    return trial.metric


def _numbers(trials: Sequence[Trial], key: str) -> bool:
    return any(is_finite(trial.values.get(key)) for trial in trials)


def _order(name: str) -> tuple[int, float, str]:
    try:
        return 0, float(name), name
    except ValueError:
        return 1, 0.0, name
