"""What every family must keep under the trainer: the engines agree with plain torch, and a run that was cut off goes on bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.func import functional_call

from fbm_dist.clip import Clip
from fbm_dist.objectives.objective import Objective
from fbm_dist.run import pretrain
from fbm_dist.schema import Run
from fbm_dist.training.distributed import start
from fbm_dist.training.engines.engine import build_engine
from fbm_dist.training.engines.turn import turn
from fbm_dist.training.monitoring.metrics import read_lines
from fbm_dist.training.optimization.optimizers import build_optimizer, settings
from tests.distributed import run_ranks
from tests.runs import make_run

ENGINES: tuple[dict[str, Any], ...] = (
    {"engine": "torch"},
    *({"engine": "deepspeed", "zero_stage": stage} for stage in range(4)),
)
ENCODER = "encoder/encoder.safetensors"
LAST = "checkpoints/step-00000002/objective.safetensors"
Build = Callable[[], Objective]
Steps = list[list[list[Clip]]]  # of each step, of each micro-batch, what each rank sees
Whole = Callable[[Objective, str, list[Clip]], list[Tensor]]
Weights = dict[str, Tensor]
Losses = list[float]  # of one rank: of each step, each player, each micro-batch

# Shares of a parameter's largest change, measured over all families: sums in another order make 2e-3 at most (the autoencoder's second
# step, where signs of L1 turn), mostly below 1e-5; without the first of two micro-batches it is 0.2 and more, wherever there is a gradient.
RTOL = 1e-2
LOSS_RTOL = 1e-4  # measured: 4e-6
ROUNDING = 1e-7  # of a weight near 1, which is stored to 6e-8, and of a gradient that is zero but for rounding


def engines_agree(
    folder: Path,
    build: Build,
    steps: Steps,
    *,
    whole: Whole | None = None,
    frozen: Collection[str] = (),
    idle: Callable[[str], bool] = lambda name: False,
    **sections: Any,
) -> None:
    """The same steps by plain torch in this process, and on ranks by the torch engine and ZeRO 0 to 3: equal losses and equal changes.

    Every rank has buffers of its own, and draws what its micro-batch's seed says, whoever computes it.

    Args:
        build: the objective, with the same weights each time.
        whole: each rank's loss on a micro-batch, where ranks look at each other's clips.
        frozen: parameters that must not change; all others must, but for those that `idle` names.
        sections: of the run, beside its engine: optimizer ...
    """
    num_ranks, micro_batches = len(steps[0][0]), len(steps[0])
    micro_batch = len(steps[0][0][0].key)
    batch = {"global_batch": num_ranks * micro_batches * micro_batch, "micro_batch": micro_batch}
    runs = [make_run(folder, training=engine | batch, **sections) for engine in ENGINES]
    before = {name: p.detach() for name, p in build().named_parameters()}
    expected, losses = _plain(runs[0], build, steps, whole)
    for name, value in expected.items():
        change = float((value - before[name]).abs().max())
        if name in frozen:
            assert change == 0, f"{name}: it is frozen"
        elif not idle(name):
            assert change > 10 * _rounding(before[name]), f"{name}: a change of {change:.1e} proves nothing"
    for rank, found in enumerate(run_ranks(num_ranks, _by_engines, runs, build, steps, timeout=300.0)):
        for engine, (heard, weights) in zip(ENGINES, found, strict=True):
            assert heard == pytest.approx(losses[rank], rel=LOSS_RTOL), engine
            assert weights.keys() == before.keys()
            for name, value in expected.items():
                _same_change(f"{engine}: {name}", before[name], weights[name], value)


def _rounding(before: Tensor) -> float:
    """What rounding alone may make of a parameter's change."""
    return ROUNDING * (1 + float(before.abs().max()))


def _same_change(where: str, before: Tensor, found: Tensor, expected: Tensor) -> None:
    """Every element's, held against the parameter's largest."""
    change = expected - before
    atol = RTOL * float(change.abs().max()) + _rounding(before)
    torch.testing.assert_close(found - before, change, rtol=0, atol=atol, msg=lambda told: f"{where}: {told}")


def _plain(run: Run, build: Build, steps: Steps, whole: Whole | None) -> tuple[Weights, list[Losses]]:
    """What one process without engines leaves, and each rank's losses."""
    objective = build().train()
    optimizers = {
        player: build_optimizer(settings(run, player).optimizer, objective, player) for player in objective.players
    }
    ranks = range(len(steps[0][0]))
    buffers = [{name: b.clone() for name, b in objective.named_buffers()} for _ in ranks]
    heard: list[Losses] = [[] for _ in ranks]
    for step in steps:
        for player, optimizer in optimizers.items():
            objective.zero_grad()
            with turn(objective, player):
                for number, clips in enumerate(step):
                    losses = whole(objective, player, clips) if whole else []
                    for rank in () if whole else ranks:
                        torch.manual_seed(10 * number + rank)
                        losses.append(functional_call(objective, buffers[rank], (player, clips[rank])).total)
                    (torch.stack(losses).mean() / len(step)).backward()
                    for own, loss in zip(heard, losses, strict=True):
                        own.append(loss.item())
            optimizer.step()
    return {name: p.detach() for name, p in objective.named_parameters()}, heard


def _by_engines(rank: int, runs: list[Run], build: Build, steps: Steps) -> list[tuple[Losses, Weights]]:
    """This rank's losses by each engine, and what it leaves of the same weights."""
    found = []
    for run in runs:
        objective, world = build().train(), start(run.training)
        engines = {player: build_engine(run, objective, player, world) for player in objective.players}
        losses: Losses = []
        for step in steps:
            for player, engine in engines.items():
                with turn(objective, player):
                    for number, clips in enumerate(step):
                        torch.manual_seed(10 * number + rank)
                        total = engine.forward(clips[rank])[0]
                        losses.append(total.item())
                        engine.backward(total)
                engine.step(settings(run, player).optimizer.lr)
        alone = len(engines) == 1
        each = [(player, engine.weights()) for player, engine in engines.items()]
        weights = {n if alone else f"{player}.{n}": v for player, own in each for n, v in own.items()}
        found.append((losses, weights))
    return found


def goes_on(folder: Path, run_of: Callable[[Path, int], Run], terms: Sequence[str]) -> Path:
    """Two steps at once, and one that goes on to two: the same encoder, objective and lines of the log, to the last bit.

    Args:
        run_of: (folder, number of steps) -> run, with a checkpoint every step.
    Returns:
        The folder of the run that was never cut off.
    """
    at_once, broken = folder / "at_once", folder / "broken"
    pretrain(run_of(at_once, 2))
    pretrain(run_of(broken, 1))
    pretrain(run_of(broken, 2))
    for file in (ENCODER, LAST):
        kept, resumed = (load_file(run / file) for run in (at_once, broken))
        assert kept.keys() == resumed.keys()
        assert all(torch.equal(value, resumed[name]) for name, value in kept.items()), file
    curves = [
        [[line[term] for term in terms] for line in read_lines(run / "metrics.jsonl")] for run in (at_once, broken)
    ]
    assert len(curves[0]) == 2
    assert curves[0] == curves[1]
    return at_once
