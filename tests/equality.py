"""What every family must keep under the trainer: the engines agree with plain torch, and a run that was cut off goes on bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

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
Whole = Callable[[Objective, str, list[Clip]], Tensor]
Weights = dict[str, Tensor]


def mean_of_ranks(objective: Objective, player: str, clips: list[Clip]) -> Tensor:
    """A micro-batch's loss where no rank looks at another's clips."""
    return torch.stack([objective(player, clip).total for clip in clips]).mean()


def engines_agree(
    folder: Path,
    build: Build,
    steps: Steps,
    *,
    whole: Whole = mean_of_ranks,
    frozen: Collection[str] = (),
    idle: Callable[[str], bool] = lambda name: False,
    rtol: float = 1e-5,
    **sections: Any,
) -> None:
    """The same steps by plain torch in this process, and on ranks by the torch engine and ZeRO 0 to 3: equal weights of every player.

    Args:
        build: the objective, with the same weights each time.
        whole: a micro-batch's loss over all ranks, in one process.
        frozen: parameters that must not change; all others must, but for those that `idle` names.
        sections: of the run, beside its engine: optimizer ...
    """
    num_ranks, micro_batches = len(steps[0][0]), len(steps[0])
    micro_batch = len(steps[0][0][0].key)
    batch = {"global_batch": num_ranks * micro_batches * micro_batch, "micro_batch": micro_batch}
    runs = [make_run(folder, training=engine | batch, **sections) for engine in ENGINES]
    before, expected = (
        dict(objective.named_parameters()) for objective in (build(), _plain(runs[0], build, steps, whole))
    )
    for name, value in expected.items():
        if not idle(name):
            assert torch.equal(value, before[name]) is (name in frozen), f"{name}: did it learn?"
    for rank in run_ranks(num_ranks, _by_engines, runs, build, steps):
        for engine, weights in zip(ENGINES, rank, strict=True):
            assert weights.keys() == before.keys()
            for name, value in expected.items():
                torch.testing.assert_close(
                    weights[name], value, rtol=rtol, atol=1e-5, msg=lambda m, at=(engine, name): f"{at}: {m}"
                )


def _plain(run: Run, build: Build, steps: Steps, whole: Whole) -> Objective:
    objective = build()
    optimizers = {
        player: build_optimizer(settings(run, player).optimizer, objective, player) for player in objective.players
    }
    for step in steps:
        for player, optimizer in optimizers.items():
            objective.zero_grad()
            with turn(objective, player):
                for clips in step:
                    (whole(objective, player, clips) / len(step)).backward()
            optimizer.step()
    return objective


def _by_engines(rank: int, runs: list[Run], build: Build, steps: Steps) -> list[Weights]:
    """What each engine leaves of the same weights."""
    found = []
    for run in runs:
        objective, world = build(), start(run.training)
        engines = {player: build_engine(run, objective, player, world) for player in objective.players}
        for step in steps:
            for player, engine in engines.items():
                with turn(objective, player):
                    for clips in step:
                        engine.backward(engine.forward(clips[rank])[0])
                engine.step(settings(run, player).optimizer.lr)
        alone = len(engines) == 1
        each = [(player, engine.weights()) for player, engine in engines.items()]
        found.append({n if alone else f"{player}.{n}": v for player, weights in each for n, v in weights.items()})
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
