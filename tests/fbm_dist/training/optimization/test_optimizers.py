"""Optimizers against their update rules written out by hand; parameter groups, alone and under ZeRO; players' own settings."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fbm_dist.schema import Optimizer, Run
from fbm_dist.training.distributed import start
from fbm_dist.training.engines.engine import build_engine
from fbm_dist.training.optimization.optimizers import build_optimizer, check_settings, factors, peak_rate, settings
from tests.distributed import run_ranks
from tests.runs import make_run
from tests.toys import Duel, Solo, make_clip

LR, DECAY, STEPS = 1e-2, 0.1, 3
GROUPS = [
    {"pattern": "^trunk\\.norm", "lr": 0.0},
    {"pattern": "bias$", "lr": 2.0, "weight_decay": 0.5},
    {"pattern": "head", "lr": 0.25},
]


def gradient(parameter: torch.Tensor, step: int) -> torch.Tensor:
    return torch.randn(parameter.shape, generator=torch.Generator().manual_seed(step)) + 0.1


def stepped(kind: str) -> torch.Tensor:
    """The head's matrix of a `Solo` after three updates with given gradients."""
    torch.manual_seed(0)
    objective = Solo()
    config = Optimizer.model_validate(
        {"kind": kind, "lr": LR, "weight_decay": DECAY, "betas": (0.8, 0.95), "eps": 1e-6}
    )
    optimizer = build_optimizer(config, objective, "model")
    for step in range(STEPS):
        objective.zero_grad()
        objective.head.weight.grad = gradient(objective.head.weight, step)
        optimizer.step()
    return objective.head.weight.detach()


def by_hand(kind: str) -> torch.Tensor:
    torch.manual_seed(0)
    w = Solo().head.weight.detach().double()
    m, v = torch.zeros_like(w), torch.zeros_like(w)
    for step in range(STEPS):
        g = gradient(w, step).double()
        if kind == "sgd":
            m = 0.9 * m + (g + DECAY * w)
            w = w - LR * m
            continue
        if kind == "adamw":
            w = w - LR * DECAY * w
        else:
            g = g + DECAY * w  # L2 goes through the normalisation
        m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g**2
        unbiased = m / (1 - 0.8 ** (step + 1)), v / (1 - 0.95 ** (step + 1))
        w = w - LR * unbiased[0] / (unbiased[1].sqrt() + 1e-6)
    return w.float()


@pytest.mark.parametrize("kind", ["adam", "adamw", "sgd"])
def test_updates_by_hand(kind: str) -> None:
    torch.testing.assert_close(stepped(kind), by_hand(kind), rtol=1e-5, atol=1e-6)


def test_the_first_group_that_matches_takes_a_parameter(tmp_path: Path) -> None:
    run = make_run(tmp_path, optimizer={"lr": LR, "weight_decay": DECAY, "groups": GROUPS})
    objective = Solo()
    check_settings(run, objective)
    found = {name: factors(run.optimizer, objective, name, p) for name, p in objective.named_parameters()}
    assert found == {
        "scale": (1.0, 0.0),
        "trunk.conv.weight": (1.0, 1.0),
        "trunk.conv.bias": (2.0, 0.5),
        "trunk.norm.weight": (0.0, 0.0),
        "trunk.norm.bias": (0.0, 0.0),  # its bias$ comes second
        "head.weight": (0.25, 1.0),
        "head.bias": (2.0, 0.5),
    }
    groups = build_optimizer(run.optimizer, objective, "model").param_groups
    told = [(g["lr_factor"], g["lr"], g["weight_decay"], len(g["params"])) for g in groups]
    assert told == [
        (0.0, 0.0, 0.0, 2),
        (0.25, LR / 4, DECAY, 1),
        (1.0, LR, 0.0, 1),
        (1.0, LR, DECAY, 1),
        (2.0, 2 * LR, DECAY / 2, 2),
    ]


def test_a_pattern_that_takes_nothing_is_refused(tmp_path: Path) -> None:
    cases: list[tuple[Any, str]] = [
        ([{"pattern": "trunc"}], r"optimizer.groups.0.pattern 'trunc' takes no parameter: names are scale, "),
        ([{"pattern": "bias"}, {"pattern": "head.bias"}], r"groups.1.* an earlier group takes all that it matches"),
        ([{"pattern": "(bias"}], "no regular expression"),
    ]
    for groups, message in cases:
        with pytest.raises(ValueError, match=message):
            check_settings(make_run(tmp_path, optimizer={"groups": groups}), Solo())


def test_players_have_settings_of_their_own(tmp_path: Path) -> None:
    own = {"optimizer": {"kind": "sgd", "lr": 0.5, "groups": [{"pattern": "bias$"}]}}
    run = make_run(tmp_path, players={"critic": own}, schedule={"warmup_steps": 7})
    check_settings(run, Duel())
    assert settings(run, "critic").optimizer.kind == "sgd"
    assert settings(run, "critic").schedule.warmup_steps == 7
    assert settings(run, "model").optimizer == run.optimizer
    with pytest.raises(ValueError, match=r"players.actor: Duel has no such player; it has critic, model"):
        check_settings(make_run(tmp_path, players={"actor": own}), Duel())


def test_the_runs_groups_need_a_parameter_of_those_who_use_them(tmp_path: Path) -> None:
    """One player's parameter is enough, unless that player has an optimizer of its own."""
    groups = {"groups": [{"pattern": "^critic\\."}]}
    check_settings(make_run(tmp_path, optimizer=groups), Duel())
    with pytest.raises(ValueError, match="takes no parameter"):
        check_settings(make_run(tmp_path, optimizer=groups, players={"critic": {"optimizer": {}}}), Duel())
    with pytest.raises(ValueError, match=r"players.model.optimizer.groups.0"):
        check_settings(make_run(tmp_path, players={"model": {"optimizer": groups}}), Duel())


@pytest.mark.parametrize(
    ("scaling", "batch", "expected"),
    [("linear", 4096, 1e-4 * 102.4), ("sqrt", 4096, 1e-4 * math.sqrt(102.4)), ("sqrt", 10, 5e-5), ("linear", 40, 1e-4)],
)
def test_the_peak_follows_the_batch(scaling: str, batch: int, expected: float) -> None:
    config = Optimizer.model_validate({"lr": 1e-4, "lr_batch": 40, "lr_scaling": scaling})
    assert peak_rate(config, batch) == pytest.approx(expected)
    assert peak_rate(config.model_copy(update={"lr_batch": None}), batch) == 1e-4


def rate(step: int) -> float:
    return LR / (1 + step)  # changes: a factor that is lost at the first change shows


def game(width: int = 16) -> Solo:
    torch.manual_seed(0)
    return Solo(width=width)


def by_torch(run: Run) -> dict[str, torch.Tensor]:
    """Plain torch, one group per parameter with its factors written out; the whole batch at once."""
    objective = game()
    named = dict(objective.named_parameters())

    def factor(name: str) -> tuple[float, float]:
        if name.startswith("trunk.norm"):
            return 0.0, 0.0
        if name.endswith("bias"):
            return 2.0, 0.5
        return (0.25 if "head" in name else 1.0), float(named[name].ndim > 1)

    rows = [{"params": [p], "weight_decay": DECAY * factor(name)[1]} for name, p in named.items()]
    kinds: dict[str, Any] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    optimizer = kinds[run.optimizer.kind](rows)
    for step in range(STEPS):
        objective.zero_grad()
        objective("model", make_clip([step * 8 + p for p in range(8)])).total.backward()
        for name, group in zip(named, optimizer.param_groups, strict=True):
            group["lr"] = rate(step) * factor(name)[0]
        optimizer.step()
    return {name: p.detach() for name, p in named.items()}


def by_engines(rank: int, runs: list[Run]) -> list[tuple[dict[str, torch.Tensor], list[float]]]:
    found = []
    for run in runs:
        world = start(run.training)
        working = game()
        engine = build_engine(run, working, "model", world)
        for step in range(STEPS):
            clip = make_clip([step * 8 + rank + 2 * p for p in range(4)])
            engine.backward(engine.forward(clip)[0])
            assert engine.step(rate(step)).applied
        rates = sorted({group["lr"] / rate(STEPS - 1) for group in engine.optimizer.param_groups})  # type: ignore[attr-defined]
        found.append((engine.weights(), rates))
    return found


@pytest.mark.distributed
@pytest.mark.parametrize(("engine", "stage"), [("torch", 0), ("deepspeed", 1), ("deepspeed", 3)])
def test_groups_under_zero_equal_plain_torch(engine: str, stage: int, tmp_path: Path) -> None:
    """Factors outlive DeepSpeed's flat buffers and every change of the rate; what is frozen keeps its first weights."""
    runs = [
        make_run(
            tmp_path,
            training={"engine": engine, "zero_stage": stage, "micro_batch": 4},
            optimizer={"kind": kind, "lr": LR, "weight_decay": DECAY, "groups": GROUPS},
        )
        for kind in ("adam", "adamw")
    ]
    first: dict[str, nn.Parameter] = dict(game().named_parameters())
    for rank in run_ranks(2, by_engines, runs):
        for run, (weights, rates) in zip(runs, rank, strict=True):
            assert rates == pytest.approx([0.0, 0.25, 1.0, 2.0])
            for name, expected in by_torch(run).items():
                torch.testing.assert_close(
                    weights[name], expected, rtol=1e-5, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}"
                )
                assert torch.equal(weights[name], first[name]) == name.startswith("trunk.norm")
