"""FBM with `training.sync_batchnorm`: processes that share a batch are one process that has it alone, whatever the engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fbm_dist.clip import Clip
from fbm_dist.schema import Run
from fbm_dist.training.distributed import start
from fbm_dist.training.game import Game
from tests.distributed import run_ranks
from tests.equality import ENGINES, Weights
from tests.runs import make_run

# The critic's turn passes through the model without gradient, and moves its running statistics, too.
FBM: dict[str, Any] = {"family": "fbm", "size": 64, "width": 0.01, "frame_critic": {"weight": 0.1}}
EVERYTHING: dict[str, Any] = {
    "trimap": {"low": 0.4, "high": 0.7},
    "random_frame": "kernels",
    "coherency": {"weight": 0.1},
    "scene_share": 0.5,
    "object_share": 0.5,
    "scene_critic": {"weight": 1.0, "hidden": 16},
}
STEPS, CLIPS = 2, 4
Found = tuple[Weights, list[dict[str, float]]]  # weights and buffers; the log


def part(clip: Clip, first: int, every: int) -> Clip:
    chosen = slice(first, None, every)
    return replace(
        clip,
        video=clip.video[chosen],
        mask=clip.required_mask("FBM")[chosen],
        frames=clip.frames[chosen],
        film=clip.film[chosen],
        key=clip.key[chosen],
        labels={name: label[chosen] for name, label in clip.labels.items()},
    )


def trained(rank: int, runs: Sequence[Run], steps: list[Clip]) -> list[Found]:
    """What each run leaves; of a step this rank sees its share."""
    found = []
    for run in runs:
        torch.manual_seed(0)
        objective, world = run.objective.build(), start(run.training)
        game, log = Game(run, objective, world), []
        for number, clip in enumerate(steps):
            outcome = game.step([part(clip, rank, world.size)], number, len(steps), True)
            assert outcome.applied
            rows = world.gather(outcome.figures)
            log.append({name: sum(row[name] for row in rows) / len(rows) for name in rows[0]})
        game.fill_objective(averaged=False)
        found.append(({name: value.clone() for name, value in objective.state_dict().items()}, log))
        game.close()
    return found


def variant(folder: Path, micro_batch: int, sync: bool = True, objective: Any = FBM, **training: Any) -> Run:
    batch = {"global_batch": CLIPS, "micro_batch": micro_batch, "sync_batchnorm": sync}
    return make_run(folder, training=training | batch, objective=objective, optimizer={"kind": "sgd", "lr": 0.05})


def in_float64(rank: int, runs: Sequence[Run], steps: list[Clip]) -> list[Found]:
    """Also what the objective itself takes in float32. Else this game makes 1e-3 of a rounding error within two steps."""
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]
    return trained(
        rank, runs, [replace(c, video=c.video.double(), mask=c.required_mask("FBM").double()) for c in steps]
    )


def close(found: Found, expected: Found, tolerance: float) -> None:
    for name, value in expected[0].items():
        torch.testing.assert_close(
            found[0][name], value, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )
    for row, wanted in zip(found[1], expected[1], strict=True):
        assert row == pytest.approx(wanted, rel=tolerance)


@pytest.fixture
def steps(make_clip: Any) -> list[Clip]:
    """Of each step, what all ranks see together."""
    return [make_clip(CLIPS, seed=step) for step in range(STEPS)]


@pytest.mark.distributed
def test_two_ranks_are_one_process_with_the_whole_batch(steps: list[Clip], tmp_path: Path) -> None:
    """Both players' curves and weights, and the running statistics."""
    ((expected,),) = run_ranks(1, in_float64, [variant(tmp_path, CLIPS, engine="torch")], steps)
    for (found,) in run_ranks(2, in_float64, [variant(tmp_path, CLIPS // 2, engine="torch")], steps):
        close(found, expected, 1e-9)


@pytest.mark.distributed
def test_every_zero_stage_is_plain_torch(steps: list[Clip], tmp_path: Path) -> None:
    """In float32, on two ranks; the first loss is that of one process, which without the switch it is not."""
    (((_, alone),),) = run_ranks(1, trained, [variant(tmp_path, CLIPS, engine="torch")], steps[:1])
    runs = [variant(tmp_path, CLIPS // 2, **engine) for engine in ENGINES]
    runs.append(variant(tmp_path, CLIPS // 2, sync=False, **ENGINES[0]))
    for plain, *stages, apart in run_ranks(2, trained, runs, steps):
        for found in stages:
            close(found, plain, 1e-5)
        together, separate, expected = (log[0]["model/loss"] for log in (plain[1], apart[1], alone))
        assert together == pytest.approx(expected, rel=5e-5)
        assert separate != pytest.approx(expected, rel=1e-3)


@pytest.mark.distributed
def test_what_is_in_a_rank_s_clips_decides_of_no_pass(steps: list[Clip], tmp_path: Path) -> None:
    """Every term, and rank 0 sees one film alone and no foreground: a pass or gradient that it left out would hang both ranks."""
    clips = steps[0]
    clips.film[::2] = 0
    clips.required_mask("FBM")[::2] = 0
    runs = [variant(tmp_path, CLIPS // 2, objective=FBM | EVERYTHING, **engine) for engine in (ENGINES[0], ENGINES[-1])]
    for plain, partitioned in run_ranks(2, trained, runs, steps[:1], timeout=60.0):
        close(partitioned, plain, 1e-4)
