"""A game goes on from a checkpoint as if nothing had happened, whatever engine, ZeRO stage and number of processes wrote it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fbm_dist.clip import Clip
from fbm_dist.schema import Run
from fbm_dist.training.checkpoints.parts import Saved
from fbm_dist.training.distributed import start
from fbm_dist.training.game import Game
from tests.distributed import run_ranks
from tests.runs import make_run
from tests.toys import Duel, Memory, Solo

GLOBAL_BATCH, STEPS, TOTAL = 8, 3, 10
Weights = dict[str, torch.Tensor]
Result = tuple[Weights, Weights, list[dict[str, float]]]


def play(rank: int, run: Run, kind: str, folder: Path, first: int, save: bool) -> Result:
    """Three steps from `first` on, resumed from `folder` if that is not the first step; (weights, averaged weights, loss terms)."""
    world = start(run.training)
    torch.manual_seed(0)
    objective = Duel(strangers="mirrored") if kind == "duel" else Solo(norm="batch" if kind == "batch" else "group")
    game = Game(run, objective, world)
    if first:
        game.load(folder, torch.load(folder / "state.pt"))
    arguments: dict[str, Any] = {"global_batch": GLOBAL_BATCH, "micro_batch": run.training.micro_batch}
    stream = (Uneven if kind == "batch" else Memory)(
        run.data, consumed=first * 8, seed=0, rank=world.rank, world_size=world.size, **arguments
    )
    clips, rows = iter(stream), []
    for step in range(first, first + STEPS):
        micro = [next(clips) for _ in range(GLOBAL_BATCH // (run.training.micro_batch * world.size))]
        outcome = game.step(micro, step, TOTAL, True)
        assert outcome.applied
        every = world.gather(outcome.figures)
        rows.append({name: sum(row[name] for row in every) / len(every) for name in every[0]})
    if save:
        write(game, folder)
    found = []
    for averaged in (False, True):
        game.fill_objective(averaged)
        found.append({name: value.clone() for name, value in objective.state_dict().items()})
    game.close()
    return found[0], found[1], rows


def write(game: Game, folder: Path) -> None:
    world = game.world
    folder.mkdir(exist_ok=True)
    world.barrier()
    game.part(copied=True).write(folder)
    state = game.state()
    world.barrier()
    if world.first:
        game.assembler()(folder)
        torch.save(state, folder / "state.pt")
    world.barrier()


def variant(engine: str, stage: int, micro: int, optimizer: str, **more: Any) -> Run:
    settings = {"engine": engine, "zero_stage": stage, "micro_batch": micro, "ema_decay": 0.9, **more}
    return make_run(Path("unused"), training=settings, optimizer={"lr": 1e-2, "kind": optimizer})


def close(found: Result, expected: Result, tolerance: float = 2e-6) -> None:
    for weights, wanted in zip(found[:2], expected[:2], strict=True):
        for name, value in wanted.items():
            torch.testing.assert_close(
                weights[name], value, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
            )
    for row, wanted_row in zip(found[2], expected[2], strict=True):
        row, wanted_row = (
            {k: v for k, v in r.items() if k != "error"} for r in (row, wanted_row)
        )  # a root: its mean depends on the micro-batch
        assert row == pytest.approx(wanted_row, rel=1e-4, abs=1e-6)


OFFLOADED = {"zero_optimization": {"offload_optimizer": {"device": "cpu"}}}


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("kind", "optimizer", "engine", "stage", "ranks"),
    [
        ("solo", "adam", "torch", 0, 1),
        ("duel", "adamw", "deepspeed", 0, 2),
        ("solo", "adam", "deepspeed", 1, 2),
        ("solo", "sgd", "deepspeed", 1, 4),
        ("duel", "adam", "deepspeed", 2, 2),
        ("duel", "adam", "deepspeed", 3, 2),
    ],
)
def test_elastic(kind: str, optimizer: str, engine: str, stage: int, ranks: int, tmp_path: Path) -> None:
    """Every source resumes as every other engine and at 1, 2 and 4 ranks; six steps equal one process of plain torch."""
    whole = variant("torch", 0, 8, optimizer)
    [begun] = run_ranks(1, play, whole, kind, tmp_path / "reference", 0, True)
    [expected] = run_ranks(1, play, whole, kind, tmp_path / "reference", STEPS, False)
    source = variant(engine, stage, {1: 4, 2: 2, 4: 2}[ranks], optimizer)
    for result in run_ranks(ranks, play, source, kind, tmp_path / "saved", 0, True):
        close(result, begun)
    targets = [("torch", 0, 1, 8), ("deepspeed", 1, 4, 1), ("deepspeed", 2, 1, 4), ("deepspeed", 3, 2, 2)]
    for other, level, size, batch in targets:
        run = variant(other, level, batch, optimizer)
        for result in run_ranks(size, play, run, kind, tmp_path / "saved", STEPS, False):
            close(result, expected)


@pytest.mark.distributed
def test_synchronised_statistics_know_no_number_of_processes(tmp_path: Path) -> None:
    """Micro-batches of four clips, on one rank, two or four: six steps are the same, whatever begins and whatever goes on."""
    whole = batchnorm("torch", 0, 4)
    [begun] = run_ranks(1, play, whole, "batch", tmp_path / "whole", 0, True)
    [expected] = run_ranks(1, play, whole, "batch", tmp_path / "whole", STEPS, False)
    for stage, ranks, engine in ((0, 4, "torch"), (1, 4, "deepspeed"), (2, 1, "torch"), (3, 1, "deepspeed")):
        folder, source = tmp_path / str(stage), batchnorm("deepspeed", stage, 2)
        for result in run_ranks(2, play, source, "batch", folder, 0, True):
            close(result, begun)
        for result in run_ranks(ranks, play, batchnorm(engine, stage, 4 // ranks), "batch", folder, STEPS, False):
            close(result, expected)


@pytest.mark.distributed
def test_statistics_per_process_know_it(tmp_path: Path) -> None:
    """By a hundred times what the test above lets pass."""
    whole, apart = (batchnorm("torch", 0, micro, sync=False) for micro in (4, 2))
    [together] = run_ranks(1, play, whole, "batch", tmp_path, 0, False)
    for weights, _, _ in run_ranks(2, play, apart, "batch", tmp_path, 0, False):
        for name in ("trunk.conv.weight", "trunk.norm.weight", "trunk.norm.running_var"):
            assert (weights[name] - together[0][name]).abs().max() > 2e-4, name


class Uneven(Memory):
    """Every second clip has thrice the contrast: with two ranks, or four, BatchNorm alone with its own sees something else."""

    def __iter__(self) -> Iterator[Clip]:
        for clip in super().__iter__():
            for video, key in zip(clip.video, clip.key, strict=True):
                video.mul_(3 if int(key.removeprefix("clip-")) % 2 else 1)
            yield clip


def batchnorm(engine: str, stage: int, micro: int, sync: bool = True) -> Run:
    """By SGD: a bias before BatchNorm has no gradient but rounding errors, of which Adam would make steps."""
    settings = {"engine": engine, "zero_stage": stage, "micro_batch": micro, "ema_decay": 0.9, "sync_batchnorm": sync}
    return make_run(Path("unused"), training=settings, optimizer={"lr": 0.5, "kind": "sgd"})


@pytest.mark.distributed
def test_offloaded_state_is_saved_and_resumed(tmp_path: Path) -> None:
    offloaded, plain = (variant("deepspeed", stage, 2, "adam", deepspeed=o) for stage, o in ((2, OFFLOADED), (1, {})))
    run_ranks(2, play, plain, "solo", tmp_path / "plain", 0, True)
    expected = run_ranks(2, play, plain, "solo", tmp_path / "plain", STEPS, False)
    run_ranks(2, play, offloaded, "solo", tmp_path / "offloaded", 0, True)
    for run in (plain, offloaded):
        for found, wanted in zip(
            run_ranks(2, play, run, "solo", tmp_path / "offloaded", STEPS, False), expected, strict=True
        ):
            close(found, wanted)


def average(weights: list[Weights], decay: float) -> Weights:
    """The moving average by its formula, over the weights after each step; the first ones are where it begins."""
    value = weights[0]
    for number, after in enumerate(weights[1:], 1):
        kept = min(decay, (1 + number) / (10 + number))
        value = {name: kept * value[name] + (1 - kept) * after[name] for name in value}
    return value


def test_average_is_its_formula() -> None:
    [(first, _, _)] = run_ranks(1, untouched)
    [found] = run_ranks(1, every_step)
    averaged = found.pop()
    expected = average([first, *found], 0.3)
    for name, value in expected.items():
        torch.testing.assert_close(averaged[name], value, msg=lambda m, n=name: f"{n}: {m}")
    assert any(not torch.equal(averaged[name], found[-1][name]) for name in expected)


def untouched(rank: int) -> Result:
    torch.manual_seed(0)
    weights = {name: p.detach().clone() for name, p in Solo().named_parameters()}
    return weights, weights, []


def every_step(rank: int) -> list[Weights]:
    """The weights after each of three steps, and their average."""
    run = make_run(
        Path("unused"), training={"engine": "torch", "ema_decay": 0.3, "micro_batch": 8}, optimizer={"lr": 0.1}
    )
    torch.manual_seed(0)
    objective = Solo()
    game, found = Game(run, objective, start(run.training)), []
    clips = iter(Memory(run.data, consumed=0, seed=0, global_batch=8, micro_batch=8, rank=0, world_size=1))
    for step in range(3):
        game.step([next(clips)], step, 3, False)
        game.fill_objective(averaged=False)
        found.append({name: p.detach().clone() for name, p in objective.named_parameters()})
    game.fill_objective(averaged=True)
    return [*found, {name: p.detach().clone() for name, p in objective.named_parameters()}]


@pytest.mark.distributed
def test_a_stretch_that_is_missing_is_told(tmp_path: Path) -> None:
    run_ranks(2, play, variant("deepspeed", 1, 2, "adam"), "solo", tmp_path / "saved", 0, True)
    (tmp_path / "saved/optimizer-00001.safetensors").unlink()
    saved, parameters = Saved(tmp_path / "saved"), dict(Solo().named_parameters())
    lacking = [name for name in sorted(parameters) if not whole(saved, name, parameters[name].numel())]
    assert lacking
    with pytest.raises(ValueError, match=r"holds \d+ of \d+ values of \S+ \(exp_avg\)"):
        saved.read("exp_avg", lacking[0], 0, parameters[lacking[0]].numel())


def whole(saved: Saved, name: str, length: int) -> bool:
    try:
        return len(saved.read("exp_avg", name, 0, length)) == length
    except ValueError:
        return False
