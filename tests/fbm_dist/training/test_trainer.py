"""The loop: what is logged, drawn and kept; a run that is cut off and started again is the run that never stopped, bit for bit."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from fbm_dist.clip import Clip
from fbm_dist.objectives.objective import Objective
from fbm_dist.schema import Data, Run
from fbm_dist.training.metrics import read_lines
from fbm_dist.training.trainer import train
from tests.distributed import RankError, run_ranks
from tests.runs import make_run
from tests.toys import Duel, Memory, Solo, make_clip

State = dict[str, torch.Tensor]
NUMBERS = ("loss", "error", "grad_norm", "lr")


class Cut(Memory):
    """A stream that ends its process's run: by an error after `batches` micro-batches, or by a signal to rank 1."""

    def __init__(self, data: Data, batches: int = 10**6, number: int | None = None, **arguments: Any) -> None:
        super().__init__(data, **arguments)
        self.batches, self.number = batches, number

    def __iter__(self) -> Iterator[Clip]:
        for index, clip in enumerate(super().__iter__()):
            if index == self.batches and self.number is None:
                raise ConnectionError("cut off")
            if index == self.batches and self.number is not None and self.arguments["rank"] == 1:
                os.kill(os.getpid(), self.number)
            yield clip


def game(kind: str) -> Objective:
    torch.manual_seed(0)
    return Duel() if kind == "duel" else Solo(norm="batch", dropout=0.2)


def session(rank: int, run: Run, kind: str, **stream: Any) -> tuple[Any, State]:
    """One session of a run on this rank; its summary and the weights that it leaves in the objective."""
    objective = game(kind)
    summary = train(
        run, objective, open_stream=partial(Cut, **stream), picture_clip=lambda data, device: make_clip([1, 2])
    )
    return summary, {name: value.clone() for name, value in objective.state_dict().items()}


def cut_off(rank: int, run: Run, kind: str, batches: int) -> None:
    with pytest.raises(ConnectionError):
        session(rank, run, kind, batches=batches)


def alone(run: Run, objective: Objective | None = None, **stream: Any) -> Any:
    """A session of one process on the torch engine."""
    return train(run, objective or game("solo"), open_stream=partial(Memory, **stream), quiet=True)


def numbers(folder: Path) -> list[dict[str, float]]:
    """What a run's log says that does not depend on the clock."""
    timed = ("time", "seconds", "clips_per_second", "data_wait")
    return [{k: v for k, v in line.items() if k not in timed} for line in read_lines(folder / "metrics.jsonl")]


def same(found: State, expected: State) -> None:
    assert found.keys() == expected.keys()
    different = [name for name, value in expected.items() if not torch.equal(found[name], value)]
    assert not different


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("engine", "stage", "kind"),
    [
        ("torch", 0, "solo"),
        ("deepspeed", 0, "solo"),
        ("deepspeed", 1, "solo"),
        ("deepspeed", 2, "duel"),
        ("deepspeed", 3, "solo"),
    ],
)
def test_cut_off_and_resumed_equals_never_stopped(engine: str, stage: int, kind: str, tmp_path: Path) -> None:
    """2 ranks, 2 micro-batches, BatchNorm's running statistics and dropout included; cut at step 5, resumed from step 4."""
    settings = {"engine": engine, "zero_stage": stage, "checkpoint_every": 2}
    schedule = {"warmup_steps": 3, "decay": "cosine"}
    whole, broken = (make_run(tmp_path / n, training=settings, schedule=schedule) for n in ("whole", "broken"))
    never_stopped = run_ranks(2, session, whole, kind)
    run_ranks(2, cut_off, broken, kind, 2 * 5 - 1)
    assert [line["step"] for line in read_lines(tmp_path / "broken/metrics.jsonl")] == [1, 2, 3, 4]
    resumed = run_ranks(2, session, broken, kind)
    for (_, expected), (summary, found) in zip(never_stopped, resumed, strict=True):
        same(found, expected)
        assert (summary.steps, summary.clips, summary.interrupted) == (6, 48, False)
    same(resumed[0][1], resumed[1][1])  # both ranks hold the whole, averaged model
    assert numbers(tmp_path / "broken") == numbers(tmp_path / "whole")


@pytest.mark.distributed
def test_kill_9_and_resume_equals_never_stopped(tmp_path: Path) -> None:
    """Two processes killed where they stand, in the middle of ZeRO-1 training; nothing beyond the last checkpoint is lost."""
    settings = {"zero_stage": 1, "checkpoint_every": 3, "steps": 40}
    whole, killed = (make_run(tmp_path / n, training=settings) for n in ("whole", "killed"))
    never_stopped = run_ranks(2, session, whole, "solo")
    lines = tmp_path / "killed/metrics.jsonl"
    run_ranks(2, session, killed, "solo", kill_when=lambda: len(read_lines(lines)) >= 8)
    reached = len(read_lines(lines))
    assert 8 <= reached < 40
    kept = max(int(p.name.removeprefix("step-")) for p in (tmp_path / "killed/checkpoints").glob("step-*"))
    assert reached - kept <= 3
    resumed = run_ranks(2, session, killed, "solo")
    for (_, expected), (_, found) in zip(never_stopped, resumed, strict=True):
        same(found, expected)
    assert numbers(tmp_path / "killed") == numbers(tmp_path / "whole")


@pytest.mark.distributed
def test_sigterm_on_one_rank_saves_and_stops_all(tmp_path: Path) -> None:
    whole, stopped = (make_run(tmp_path / n, training={"zero_stage": 1}) for n in ("whole", "stopped"))
    never_stopped = run_ranks(2, session, whole, "solo")
    early = run_ranks(2, partial(session, batches=2 * 3, number=signal.SIGTERM), stopped, "solo")
    assert [(summary.interrupted, summary.steps) for summary, _ in early] == [(True, 4)] * 2
    assert (tmp_path / "stopped/checkpoints/step-00000004").is_dir()
    for (_, expected), (summary, found) in zip(never_stopped, run_ranks(2, session, stopped, "solo"), strict=True):
        assert not summary.interrupted
        same(found, expected)


def test_logs_the_mean_over_the_global_batch(tmp_path: Path) -> None:
    run = make_run(tmp_path, training={"engine": "torch", "steps": 2, "picture_every": 0})
    reports: list[dict[str, float]] = []
    objective = Solo()
    expected = float(objective("model", make_clip(list(range(8)))).total.detach())
    summary = train(run, objective, reports.append, open_stream=Memory, quiet=True)
    first, second = read_lines(tmp_path / "metrics.jsonl")
    assert first["loss"] == pytest.approx(expected, rel=1e-6)
    assert {"error", "grad_norm", "lr", "clips_per_second", "data_wait", "seconds", "epoch"} <= set(first)
    assert second["epoch"] == 16 / Memory.num_clips
    assert reports[1] == {"step": 2.0, **summary.metrics}
    assert 0 <= first["data_wait"] <= 1


@pytest.mark.distributed
def test_ranks_are_averaged_in_the_log_and_in_batch_norm(tmp_path: Path) -> None:
    run = make_run(tmp_path, training={"engine": "torch", "steps": 1, "micro_batch": 4})
    ranks = run_ranks(2, session, run, "solo")
    statistics = []
    for rank in range(2):
        objective = game("solo")
        objective.trunk(make_clip([2 * j + rank for j in range(4)]).video)
        statistics.append(objective.trunk.norm.running_mean)
    for _, state in ranks:
        torch.testing.assert_close(state["trunk.norm.running_mean"], (statistics[0] + statistics[1]) / 2)


def test_epochs_become_steps(tmp_path: Path) -> None:
    run = make_run(tmp_path, training={"engine": "torch", "steps": None, "epochs": 0.5, "log_every": 100})
    assert alone(run).steps == 4  # 64 clips, 8 a step
    assert [line["step"] for line in read_lines(tmp_path / "metrics.jsonl")] == [1, 4]


@pytest.mark.distributed
@pytest.mark.parametrize("stage", [1, 3])
def test_pictures_are_drawn_and_change_nothing(stage: int, tmp_path: Path) -> None:
    plain, drawn = (
        make_run(tmp_path / name, training={"zero_stage": stage, "steps": 4, "picture_every": every})
        for name, every in (("plain", 0), ("drawn", 3))
    )
    (_, expected), _ = run_ranks(2, session, plain, "solo")
    (summary, found), _ = run_ranks(2, session, drawn, "solo")
    same(found, expected)
    assert sorted(p.name for p in (tmp_path / "drawn/pictures").iterdir()) == [
        "first_frame-00000003.png",
        "first_frame-00000004.png",
    ]
    assert summary.pictures == (tmp_path / "drawn/pictures/first_frame-00000004.png",)
    with Image.open(summary.pictures[0]) as picture:
        assert picture.size == (8, 16)  # two clips of 8x8, one below the other
    assert not (tmp_path / "plain/pictures").exists()


def test_a_finished_run_has_nothing_left_to_do(tmp_path: Path) -> None:
    run = make_run(tmp_path, training={"engine": "torch"})
    first, objective = alone(run), game("solo")
    again = alone(run, objective)
    assert (again.steps, again.metrics, again.seconds) == (first.steps, first.metrics, first.seconds)
    trained = torch.load(tmp_path / "checkpoints/step-00000006/engine-model/engine.pt", weights_only=True)["model"]
    same(dict(objective.named_parameters()), {name: trained[name] for name, _ in objective.named_parameters()})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"stream": {"digest": "d1"}}, "digest d0, now d1"),
        ({"run": {"seed": 5}}, "run.seed is 5"),
        ({"training": {"global_batch": 4}}, "training.global_batch is 4"),
        ({"objective": {"family": "fbm", "width": 0.25}}, "objective.width is 0.25"),
        ({"optimizer": {"kind": "sgd"}}, "optimizer.kind is 'sgd'"),
    ],
)
def test_another_run_in_the_same_folder_is_refused(change: dict[str, Any], told: str, tmp_path: Path) -> None:
    alone(make_run(tmp_path, training={"engine": "torch", "steps": 2}))
    stream = change.pop("stream", {})
    training = {"engine": "torch", "steps": 4, **change.pop("training", {})}
    run = make_run(tmp_path, training=training, **change)
    with pytest.raises(ValueError, match=told) as caught:
        alone(run, **stream)
    assert "\n" not in str(caught.value)


@pytest.mark.distributed
def test_another_world_or_engine_is_refused(tmp_path: Path) -> None:
    alone(make_run(tmp_path, training={"engine": "torch", "steps": 2}))
    with pytest.raises(RankError, match="number of processes is 2, but the checkpoint there has 1"):
        run_ranks(2, session, make_run(tmp_path, training={"engine": "torch", "steps": 4}), "solo")
    with pytest.raises(RankError, match=r"training\.engine is 'deepspeed', but the checkpoint there has 'torch'"):
        run_ranks(1, session, make_run(tmp_path, training={"engine": "deepspeed", "steps": 4}), "solo")


def damage_truncate(folder: Path) -> None:
    path = folder / "objective.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def damage_flip(folder: Path) -> None:
    path = folder / "engine-model/engine.pt"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def damage_remove(folder: Path) -> None:
    (folder / "rank-00000.pt").unlink()


def damage_unfinished(folder: Path) -> None:
    (folder / "complete.json").unlink()


@pytest.mark.parametrize("damage", [damage_truncate, damage_flip, damage_remove, damage_unfinished])
def test_a_damaged_checkpoint_is_passed_over(damage: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    training = {"engine": "torch", "checkpoint_every": 2, "steps": 4}
    whole, hurt = game("solo"), game("solo")
    alone(make_run(tmp_path / "whole", training=training), whole)
    run = make_run(tmp_path / "hurt", training=training)
    alone(run)
    damage(tmp_path / "hurt/checkpoints/step-00000004")
    (tmp_path / "hurt/checkpoints/.step-00000005.partial").mkdir()
    alone(run, hurt)
    told = capsys.readouterr().out
    assert "step-00000004: damaged (" in told
    assert "goes on from step 2 of 4" in told
    assert ".step-00000005.partial: half written" in told
    same(hurt.state_dict(), whole.state_dict())


def test_the_last_n_checkpoints_are_kept(tmp_path: Path) -> None:
    alone(make_run(tmp_path, training={"engine": "torch", "checkpoint_every": 1, "keep_checkpoints": 2}))
    names = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-00000005", "step-00000006"]
    manifest = json.loads((tmp_path / "checkpoints" / names[-1] / "complete.json").read_text())
    assert set(manifest["files"]) == {"engine-model/engine.pt", "objective.safetensors", "rank-00000.pt"}


def full_disk(rank: int, run: Run) -> str:
    """The second checkpoint fails on rank 1 alone, in the middle of DeepSpeed's own saving."""
    write = torch.save

    def fail(value: Any, target: Any, *arguments: Any, **named: Any) -> None:
        if rank == 1 and "step-00000004" in str(target) and "optim_states" in str(target):
            raise OSError(errno.ENOSPC, "No space left on device")
        write(value, target, *arguments, **named)

    torch.save = fail  # this process is a fork of its own
    with pytest.raises(ValueError, match="step 4 could not be written") as caught:
        session(rank, run, "solo")
    return str(caught.value)


@pytest.mark.distributed
def test_a_full_disk_on_one_rank_ends_the_run_on_all_and_spares_the_last_checkpoint(tmp_path: Path) -> None:
    run = make_run(tmp_path, training={"zero_stage": 1, "checkpoint_every": 2})
    for text in run_ranks(2, full_disk, run):
        assert "No space left on device" in text
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000002"]
    assert run_ranks(2, session, run, "solo")[0][0].steps == 6


def test_non_finite_steps_are_counted_and_too_many_end_the_run(tmp_path: Path) -> None:
    one = make_run(tmp_path / "one", training={"engine": "torch", "steps": 3})
    summary = alone(one, poison=(9,))  # a position of step 2
    assert summary.skipped == 1
    assert [line["loss"] is None for line in read_lines(tmp_path / "one/metrics.jsonl")] == [False, True, False]
    many = make_run(tmp_path / "many", training={"engine": "torch", "steps": 30})
    with pytest.raises(ValueError, match=r"20 steps in a row .* weights are those of step 3"):
        alone(many, poison=tuple(range(24, 8 * 30)))


def failing_visualize(rank: int, run: Run) -> str:
    objective = Solo()
    objective.visualize = lambda clip: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    with pytest.raises((ValueError, ZeroDivisionError)) as caught:
        train(run, objective, open_stream=Memory, picture_clip=lambda data, device: make_clip([1]), quiet=True)
    return f"{type(caught.value).__name__}: {caught.value}"


@pytest.mark.distributed
def test_an_error_on_rank_0_alone_ends_all(tmp_path: Path) -> None:
    run = make_run(tmp_path, training={"engine": "torch", "picture_every": 2})
    first, second = run_ranks(2, failing_visualize, run)
    assert first == "ZeroDivisionError: division by zero"
    assert second == "PeerError: rank 0: division by zero"


def test_a_parameter_without_a_player_is_refused(tmp_path: Path) -> None:
    objective = Duel()
    objective.scale = torch.nn.Parameter(torch.ones(1))
    with pytest.raises(ValueError, match="'scale' belongs to none of the players"):
        alone(make_run(tmp_path, training={"engine": "torch"}), objective)
