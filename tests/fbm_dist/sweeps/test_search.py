"""Spaces and samplers: what a config may say, what is drawn, and that Optuna learns. No Ray cluster."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from data_tools.config import ConfigError, load
from fbm_dist.sweeps.config import Sweep
from fbm_dist.sweeps.record import Trial
from fbm_dist.sweeps.search.samplers import OptunaSampler, sampler_of
from fbm_dist.sweeps.search.space import LogUniform, short_names


def sweep(*overrides: str) -> Sweep:
    return load(Sweep, None, ["pretrain=x.yaml", *overrides])


def test_every_kind_draws_within_its_bounds_and_by_the_seed_alone() -> None:
    space = "space={a.b: 1}".replace(
        "{a.b: 1}", "{optimizer.lr: {loguniform: [1e-4, 1]}, objective.margin: {uniform: [0.2, 0.4]}"
    )
    space += ", data.workers: {randint: [1, 3]}, optimizer.eps: {quniform: [0, 1, 0.1]}, optimizer.kind: {choice: [adam, null]}}"
    drawn = [sampler_of(sweep(space, "trials=200", "seed=5"), []).ask(n) for n in range(200)]
    assert drawn == [sampler_of(sweep(space, "trials=900", "seed=5"), []).ask(n) for n in range(200)]
    assert drawn[0] != sampler_of(sweep(space, "trials=200", "seed=6"), []).ask(0)
    rates = [values["optimizer.lr"] for values in drawn]
    assert 1e-4 <= min(rates) < 1e-3 < 1e-1 < max(rates) <= 1
    assert 0.4 < sum(rate < 1e-2 for rate in rates) / 200 < 0.6, "as many below the middle of the logarithm as above"
    assert all(0.2 <= values["objective.margin"] <= 0.4 for values in drawn)
    assert {values["data.workers"] for values in drawn} == {1, 2, 3}
    assert {values["optimizer.eps"] for values in drawn} == {round(0.1 * i, 1) for i in range(11)}
    assert {values["optimizer.kind"] for values in drawn} == {"adam", None}
    assert all(len(f"{rate:.6g}") >= len(str(rate)) - 2 for rate in rates), "numbers that can be typed again"


def test_a_grid_is_all_combinations() -> None:
    grid = sampler_of(sweep("space={optimizer.lr: {grid: [1, 2]}, run.seed: {grid: [0, 1, 2]}}", "search=grid"), [])
    assert grid.total == 6
    assert [tuple(grid.ask(n).values()) for n in range(6)] == [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["space={lr: {uniform: [0, 1]}}", "trials=2"], "lr is no key of a run; its first word is one of run, objective"),
        (["space={optimizer.lr: {uniform: [1, 0]}}", "trials=2"], r"\[1, 0\] is no range; give the smaller bound first"),
        (["space={optimizer.lr: {loguniform: [0, 1]}}", "trials=2"], "a logarithmic range begins above 0"),
        (["space={optimizer.lr: {quniform: [0, 1, 2]}}", "trials=2"], "a step of 2 does not fit between 0 and 1"),
        (["space={optimizer.lr: {normal: [0, 1]}}", "trials=2"], r"space.optimizer.lr: give one of \{grid: \[...\]\}"),
        (["space={optimizer.lr: {uniform: 3}}", "trials=2"], "uniform takes a list"),
        (["space={optimizer.lr: {uniform: [0, 1]}}"], "search=random needs to know how many trials; give trials"),
        (["space={optimizer.lr: {uniform: [0, 1]}}", "search=grid"], r"is uniform, which search=grid cannot use; give \{grid"),
        (["space={optimizer.lr: {grid: [0, 1]}}", "trials=2"], "is grid, which search=random cannot use; write choice"),
        (["space={optimizer.lr: {grid: [0, 1]}}", "search=grid", "trials=2"], "search=grid runs all combinations"),
        (["space={run.folder: {choice: [a]}}", "trials=2"], "run.folder is for the sweep to give; set output"),
        (["space={optimizer.lr: {uniform: [0, 1]}}", "trials=2", "run.folder=x"], "run.folder is for the sweep to give"),
        (["space={optimizer.lr: {uniform: [0, 1]}}", "trials=2", "resources.gpus=1.5"], "a trial takes whole GPUs, or a share"),
        (["space={optimizer.lr: {uniform: [0, 1]}}", "trials=2", "resources={gpus: 2, processes: 3}"], "a process takes one GPU"),
        (["space={optimizer.lr: {uniform: [0, 1]}}", "trials=2", "optimzer.lr=3"], "the nearest valid key is 'optimizer'"),
    ],
)  # fmt: skip
def test_a_wrong_config_is_told_in_one_line(overrides: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told) as raised:
        sweep(*overrides)
    assert "\n" not in str(raised.value)


def test_dotted_and_nested_keys_are_one(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(
        "pretrain: p.yaml\ntrials: 1\nspace:\n  optimizer: {lr: {loguniform: [0.1, 1]}, eps: {uniform: [0, 1]}}\n"
    )
    found = load(
        Sweep, path, ["space.objective.loss.margin={choice: [1]}", "data.path=d", "training.steps=3", "probe=null"]
    )
    assert list(found.space) == ["optimizer.lr", "optimizer.eps", "objective.loss.margin"]
    assert isinstance(found.space["optimizer.lr"], LogUniform)
    assert found.overlaid() == [("data.path", "d"), ("training.steps", 3), ("probe", None)]


def test_optuna_learns_also_from_earlier_sessions_and_from_failures() -> None:
    config = sweep(
        "space={optimizer.lr: {loguniform: [1e-6, 1]}, optimizer.kind: {choice: [adam, sgd]}}",
        "search=optuna",
        "trials=60",
    )
    known: list[Trial] = []

    def go_on(count: int) -> None:
        sampler = sampler_of(config, known)
        assert isinstance(sampler, OptunaSampler)
        for number in range(len(known), len(known) + count):
            values = sampler.ask(number)
            trial = Trial(number, values, "", "finished", abs(math.log10(values["optimizer.lr"]) + 3))
            if values["optimizer.kind"] == "sgd":
                trial.status, trial.metric = "diverged", None
            sampler.tell(trial)
            known.append(trial)

    for _ in range(6):
        go_on(10)
    rates = [trial.values["optimizer.lr"] for trial in known]
    assert len(set(rates)) == 60, "no session draws the first values once more"
    distance = [abs(math.log10(rate) + 3) for rate in rates]
    assert sum(distance[30:]) / 30 < 0.7 * sum(distance[:10]) / 10


def test_short_names_are_unique() -> None:
    keys = ("objective.coherency.margin", "objective.loss.margin", "optimizer.lr")
    assert list(short_names(keys).values()) == ["coherency.margin", "loss.margin", "lr"]
