"""Rankings, tables and figures of finished records; no Ray."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from fbm_dist.config import load
from fbm_dist.sweeps.config import Sweep
from fbm_dist.sweeps.record import Record, Trial
from fbm_dist.sweeps.report.figure import draw, hue_of, panel
from fbm_dist.sweeps.report.tables import markdown


def sweep(space: str, *more: str) -> Sweep:
    return load(Sweep, None, ["pretrain=x.yaml", f"space={space}", "metric={name: probe/all_knn, mode: max}", *more])


def record(values: list[dict[str, object]], metrics: list[float | None], path: Path = Path("results.json")) -> Record:
    found = Record(path, "max")
    for number, (value, metric) in enumerate(zip(values, metrics, strict=True)):
        found.trials.append(Trial(number, value, "folder", "failed" if metric is None else "finished", metric))
    return found


def test_the_highest_wins_where_the_metric_is_to_rise_and_what_failed_is_last(tmp_path: Path) -> None:
    margins = [{"objective.loss.margin": m} for m in (0.1, 0.25, 0.5, 1.0)]
    found = record(margins, [0.5, 0.75, None, 0.75], tmp_path / "results.json")
    found.trials[2].reason = "error | with a bar"
    best = found.best
    assert best is not None
    assert best.number == 1, "of equals the first"
    table = markdown(sweep("{objective.loss.margin: {grid: [0.1, 0.25, 0.5, 1.0]}}", "search=grid"), found, Path("s"))
    rows = [line.split("|")[1].strip(" *") for line in table.splitlines() if line.startswith("|")][2:]
    assert rows == ["0001", "0003", "0000", "0002"]
    assert "error \\| with a bar" in table
    assert "higher is better" in table
    found.write()
    assert Record.open(tmp_path, "max").trials == found.trials


def test_a_curve_for_each_value_of_the_other_key_through_the_means_of_seeds() -> None:
    space = "{objective.loss.margin: {grid: [0.5, 1.0]}, objective.loss.kind: {grid: [siamese, quadruplet]}, run.seed: {grid: [0, 1]}}"
    config = sweep(space, "search=grid")
    values: list[dict[str, object]] = [
        {"objective.loss.margin": m, "objective.loss.kind": k, "run.seed": s}
        for m in (0.5, 1.0)
        for k in ("siamese", "quadruplet")
        for s in (0, 1)
    ]
    found = record(values, [0.1, 0.3, 0.5, 0.7, 0.2, 0.4, 0.6, 0.8])
    assert hue_of(config, found.trials, "objective.loss.margin") == "objective.loss.kind"
    axes = Figure().subplots()
    names = {"objective.loss.margin": "margin", "objective.loss.kind": "kind", "run.seed": "seed"}
    panel(axes, config, found, found.trials, "objective.loss.margin", names)
    curves = [line for line in axes.lines if line.get_linestyle() == "-"]
    assert [[round(float(y), 6) for y in line.get_ydata()] for line in curves] == [[0.6, 0.7], [0.2, 0.3]]
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["kind=quadruplet", "kind=siamese", "best"]
    assert axes.get_xscale() == "linear"


def test_a_logarithmic_range_has_a_logarithmic_axis_and_words_alone_no_figure(tmp_path: Path) -> None:
    config = sweep("{optimizer.lr: {loguniform: [1e-4, 1]}, optimizer.kind: {choice: [adam, sgd]}}", "trials=2")
    found = record(
        [{"optimizer.lr": 0.1, "optimizer.kind": "adam"}, {"optimizer.lr": 0.01, "optimizer.kind": "sgd"}], [0.5, 0.6]
    )
    axes = Figure().subplots()
    panel(axes, config, found, found.trials, "optimizer.lr", {"optimizer.lr": "lr", "optimizer.kind": "kind"})
    assert axes.get_xscale() == "log"
    assert {path.name for path in draw(config, found, tmp_path)} == {"figure.png", "figure.svg"}
    words = sweep("{optimizer.kind: {grid: [adam, sgd]}}", "search=grid")
    assert draw(words, record([{"optimizer.kind": "adam"}], [0.5]), tmp_path) == []
