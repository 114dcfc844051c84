"""Every ZeRO stage and the torch engine train as one plain torch process on the whole batch would."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from fbm_dist.objectives.objective import Objective
from fbm_dist.schema import Run
from fbm_dist.training.distributed import start
from fbm_dist.training.engines.engine import Step, accumulation_steps, build_engine, check_engine
from fbm_dist.training.engines.turn import player_module, turn
from fbm_dist.training.engines.zero import deepspeed_config
from fbm_dist.training.optimization.optimizers import build_optimizer
from tests.distributed import run_ranks
from tests.runs import make_run
from tests.toys import Duel, Solo, make_clip

GLOBAL_BATCH = 8
STEPS = 3
STAGES: list[tuple[str, int]] = [("torch", 0), ("deepspeed", 0), ("deepspeed", 1), ("deepspeed", 2), ("deepspeed", 3)]
Weights = dict[str, torch.Tensor]


def game(kind: str) -> Objective:
    torch.manual_seed(0)
    return Duel(width=16) if kind == "duel" else Solo(width=16, norm="batch" if kind == "batch" else "group")


def reference(run: Run, kind: str, poison: int | None = None) -> tuple[Weights, list[float]]:
    """Plain torch, one process, no engine: shards of the batch one after the other, since a critic's pairs stay within a shard."""
    objective = game(kind)
    optimizers = {player: build_optimizer(run.optimizer, objective, player) for player in objective.players}
    norms = []
    shards = shards_of(run)
    for step in range(STEPS):
        for player, optimizer in optimizers.items():
            objective.zero_grad()
            with turn(objective, player):
                for shard in shards:
                    loss = objective(player, make_clip([step * GLOBAL_BATCH + p for p in shard])).total
                    (loss / len(shards)).backward()
            owned = list(player_module(objective, player).parameters())
            norms.append(float(torch.nn.utils.clip_grad_norm_(owned, run.training.gradient_clipping or 1e9)))
            if step != poison:
                optimizer.step()
    return {name: p.detach().clone() for name, p in objective.named_parameters()}, norms


def shards_of(run: Run, world_size: int = 2) -> list[list[int]]:
    """Positions within a step of each (micro-batch, rank)."""
    micro = run.training.micro_batch
    starts = range(0, GLOBAL_BATCH, micro * world_size)
    return [[s + j * world_size + r for j in range(micro)] for s in starts for r in range(world_size)]


def by_engines(rank: int, runs: list[Run], kind: str, poison: int | None = None) -> list[tuple[Weights, list[Step]]]:
    """The same steps by the engines, run after run; with `poison`, rank 1 sees NaN in that step."""
    found = []
    for run in runs:
        world = start(run.training)
        working = game(kind)
        engines = {player: build_engine(run, working, player, world) for player in working.players}
        mine = shards_of(run)[rank::2]
        assert len(mine) == accumulation_steps(run.training, world.size)
        steps = []
        for step in range(STEPS):
            for player, engine in engines.items():
                with turn(working, player):
                    for shard in mine:
                        clip = make_clip([step * GLOBAL_BATCH + p for p in shard])
                        if step == poison and rank == 1:
                            clip.video.fill_(float("nan"))
                        engine.backward(engine.forward(clip)[0])
                steps.append(engine.step(run.optimizer.lr))
        alone = len(engines) == 1
        weights = {
            name if alone else f"{player}.{name}": value
            for player, engine in engines.items()
            for name, value in engine.weights().items()
        }
        found.append((weights, steps))
    return found


def compare(found: Weights, expected: Weights, tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


def variants(folder: Path, engine: str, stage: int) -> list[Run]:
    """One, two and four micro-batches, with and without clipping, all three optimizers."""
    cases = ((4, None, "adam"), (2, 0.05, "adamw"), (2, None, "sgd"), (1, None, "sgd"))
    return [
        make_run(
            folder,
            training={"engine": engine, "zero_stage": stage, "micro_batch": micro, "gradient_clipping": clipping},
            optimizer={"lr": 1e-3, "weight_decay": 0.1, "kind": optimizer},
        )
        for micro, clipping, optimizer in cases
    ]


@pytest.mark.distributed
@pytest.mark.parametrize("kind", ["solo", "duel"])
@pytest.mark.parametrize(("engine", "stage"), STAGES)
def test_equals_plain_torch(kind: str, engine: str, stage: int, tmp_path: Path) -> None:
    runs = variants(tmp_path, engine, stage)
    ranks = run_ranks(2, by_engines, runs, kind)
    untrained = dict(game(kind).named_parameters())
    for index, run in enumerate(runs):
        expected, norms = reference(run, kind)
        assert all(not torch.equal(expected[name], value) for name, value in untrained.items())
        for rank in ranks:
            weights, steps = rank[index]
            compare(weights, expected, 2e-6)
            assert all(step.applied for step in steps)
            assert [step.norm for step in steps] == pytest.approx(norms, rel=1e-4)


@pytest.mark.distributed
@pytest.mark.parametrize(("stage", "parts"), [(1, ("optimizer",)), (2, ("optimizer",)), (3, ("optimizer", "param"))])
def test_offloading_to_the_cpu_is_passed_through(stage: int, parts: tuple[str, ...], tmp_path: Path) -> None:
    zero = {f"offload_{part}": {"device": "cpu"} for part in parts}
    settings = {"zero_stage": stage, "deepspeed": {"zero_optimization": zero}}
    run = make_run(
        tmp_path, training=settings, optimizer={"lr": 1e-3, "eps": 1e-3}
    )  # Adam makes much of a gradient of rounding errors
    assert deepspeed_config(run.training, 2)["zero_optimization"] == {"stage": stage, **zero}
    expected, _ = reference(run, "duel")
    for ((weights, _),) in run_ranks(2, by_engines, [run], "duel"):
        compare(weights, expected, 2e-6)


@pytest.mark.distributed
@pytest.mark.parametrize(("engine", "stage"), STAGES)
def test_nan_on_one_rank_skips_the_step_on_all(engine: str, stage: int, tmp_path: Path) -> None:
    """With two micro-batches; the steps before and after count as ever."""
    run = variants(tmp_path, engine, stage)[1]
    expected, _ = reference(run, "solo", poison=1)
    for ((weights, steps),) in run_ranks(2, by_engines, [run], "solo", 1):
        assert [step.applied for step in steps] == [True, False, True]
        assert not math.isfinite(steps[1].norm)
        compare(weights, expected, 2e-6)


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("kind", "engine", "stage"),
    [*(("batch", *stage) for stage in STAGES), ("duel", "deepspeed", 1), ("duel", "deepspeed", 3)],
)
def test_bf16_autocast_keeps_fp32_weights(kind: str, engine: str, stage: int, tmp_path: Path) -> None:
    """BatchNorm included, which DeepSpeed's own bf16 mode cannot do; one and two players, two micro-batches; close to fp32."""
    settings = {"engine": engine, "zero_stage": stage, "micro_batch": 2, "precision": "bf16"}
    run = make_run(tmp_path, training=settings)
    expected, norms = reference(run, kind)
    for ((weights, steps),) in run_ranks(2, by_engines, [run], kind):
        assert all(value.dtype == torch.float32 for value in weights.values())
        assert [step.norm for step in steps] == pytest.approx(norms, rel=0.1)
        assert [step.norm for step in steps] != pytest.approx(norms, rel=1e-6)
        compare(weights, expected, 2.5 * STEPS * run.optimizer.lr)


def test_a_global_batch_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path, training={"global_batch": 20, "micro_batch": 6})
    with pytest.raises(ValueError, match=r"global_batch=20 is not a multiple .* use training.global_batch=24"):
        accumulation_steps(run.training, 2)


def test_deepspeed_is_told_what_it_would_guess_wrong(tmp_path: Path) -> None:
    config = deepspeed_config(make_run(tmp_path).training, 2)
    assert config["gradient_clipping"] == 0.0  # its own default is 1.0
    assert "scheduler" not in config
    assert config["gradient_accumulation_steps"] == 2
    assert config["torch_autocast"]["enabled"] is False


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"train_batch_size": 8}, "training.deepspeed.train_batch_size: the trainer sets it"),
        ({"zero_optimization": {"stage": 2}}, r"use training\.zero_stage"),
        ({"zero_optimization": {"offload_optimizer": {"device": "nvme"}}}, "nvme is not supported, cpu is"),
        ({"zero_optimization": 3}, "zero_optimization: expected keys and values"),
        ({"zero_optimization": {"offload_optimizer": "cpu"}}, r"zero_optimization\.offload_optimizer: Input should be"),
        ({"zero_optimisation": {}}, "did you mean zero_optimization"),
    ],
)
def test_deepspeeds_own_keys_that_cannot_be_given(given: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=told):
        check_engine(make_run(tmp_path, training={"deepspeed": given}).training, 4)


def test_decay_factors_become_parameter_groups(tmp_path: Path) -> None:
    """Vectors do not decay by default; the frozen part has no place in the optimizer."""
    objective = Solo()
    objective.trunk.conv.requires_grad_(False)
    optimizer = build_optimizer(make_run(tmp_path, optimizer={"weight_decay": 0.25}).optimizer, objective, "model")
    sizes = {group["weight_decay"]: sorted(p.ndim for p in group["params"]) for group in optimizer.param_groups}
    assert sizes == {0.0: [1, 1, 1, 1], 0.25: [2]}
    assert isinstance(optimizer, torch.optim.Adam)
    assert not isinstance(optimizer, torch.optim.AdamW)
