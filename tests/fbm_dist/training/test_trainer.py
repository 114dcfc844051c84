"""The loop: what is logged, drawn and kept; a run that is cut off and started again is the run that never stopped, bit for bit."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from fbm_dist.clip import Clip
from fbm_dist.objectives.objective import Objective
from fbm_dist.schema import Data, Run
from fbm_dist.training.checkpoints.parts import Part
from fbm_dist.training.distributed import start
from fbm_dist.training.engines.engine import build_engine
from fbm_dist.training.monitoring.metrics import read_lines
from fbm_dist.training.trainer import train
from tests.distributed import run_ranks
from tests.runs import make_run
from tests.toys import Duel, Memory, Solo, make_clip

State = dict[str, torch.Tensor]
NUMBERS = ("loss", "error", "grad_norm", "lr")


class Cut(Memory):
    """A stream that ends its process's run after `batches` micro-batches, by an error or by a signal to rank 1; or that then holds."""

    def __init__(
        self, data: Data, batches: int = 10**6, number: int | None = None, hold: bool = False, **arguments: Any
    ) -> None:
        super().__init__(data, **arguments)
        self.batches, self.number, self.hold = batches, number, hold

    def __iter__(self) -> Iterator[Clip]:
        for index, clip in enumerate(super().__iter__()):
            if index == self.batches and self.hold:
                threading.Event().wait()
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


def held(rank: int, run: Run, kind: str, batches: int) -> None:
    """A session that waits after so many micro-batches, however late its end comes."""
    session(rank, run, kind, batches=batches, hold=True)


def alone(run: Run, objective: Objective | None = None, **stream: Any) -> Any:
    """A session of one process on the torch engine."""
    return train(run, objective or game("solo"), open_stream=partial(Memory, **stream), quiet=True)


def numbers(folder: Path) -> list[dict[str, float]]:
    """What a run's log says that does not depend on the clock."""
    timed = ("time", "seconds", "clips_per_second", "data_wait", "checkpoint_stall")
    lines = read_lines(folder / "metrics.jsonl")
    return [{k: v for k, v in line.items() if k not in timed and not k.startswith("system/")} for line in lines]


def same(found: State, expected: State) -> None:
    assert found.keys() == expected.keys()
    different = [name for name, value in expected.items() if not torch.equal(found[name], value)]
    assert not different


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("engine", "stage", "kind", "sync"),
    [
        ("torch", 0, "solo", False),
        ("deepspeed", 0, "solo", False),
        ("deepspeed", 1, "solo", False),
        ("deepspeed", 2, "duel", False),
        ("deepspeed", 3, "solo", False),
        ("torch", 0, "solo", True),
        ("deepspeed", 3, "solo", True),
    ],
)
def test_cut_off_and_resumed_equals_never_stopped(
    engine: str, stage: int, kind: str, sync: bool, tmp_path: Path
) -> None:
    """2 ranks, 2 micro-batches, BatchNorm's running statistics and dropout included; cut at step 5, resumed from step 4."""
    settings = {"engine": engine, "zero_stage": stage, "checkpoint_every": 2, "sync_batchnorm": sync}
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
    run_ranks(2, held, killed, "solo", 2 * 30, kill_when=lambda: len(read_lines(lines)) >= 8)
    reached = len(read_lines(lines))
    assert 8 <= reached < 40
    kept = max(int(p.name.removeprefix("step-")) for p in (tmp_path / "killed/checkpoints").glob("step-*"))
    assert reached - kept <= 2 * 3  # one may have been half written
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
    same(objective.state_dict(), load_file(tmp_path / "checkpoints/step-00000006/objective.safetensors"))


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
def test_another_world_engine_and_micro_batch_go_on_with_the_same_data(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Three sessions of two steps each: ZeRO-1 on 2 ranks, plain torch on one, ZeRO-3 on 4; the loss is that of one process."""
    whole = make_run(tmp_path / "whole", training={"engine": "torch", "micro_batch": 8})
    run_ranks(1, plain_session, whole)
    for steps, ranks, settings in (
        (2, 2, {"zero_stage": 1}),
        (4, 1, {"engine": "torch", "micro_batch": 8}),
        (6, 4, {"zero_stage": 3, "micro_batch": 1}),
    ):
        run_ranks(ranks, plain_session, make_run(tmp_path / "broken", training={"steps": steps, **settings}))
    told = capfd.readouterr().out
    assert "processes 2 -> 1, engine ZeRO-1 -> torch, micro_batch 2 -> 8; the order of the data is the same" in told
    losses = [[line["loss"] for line in read_lines(tmp_path / name / "metrics.jsonl")] for name in ("broken", "whole")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert "BatchNorm" not in told


def plain_session(rank: int, run: Run) -> None:
    torch.manual_seed(0)
    train(run, Solo(), open_stream=Memory, quiet=True)


@pytest.mark.distributed
def test_statistics_per_process_are_told_when_the_number_of_processes_changes(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path, training={"steps": 2})
    run_ranks(2, session, run, "solo")
    run_ranks(1, session, run.model_copy(update={"training": run.training.model_copy(update={"steps": 3})}), "solo")
    assert "BatchNorm takes its statistics per process" in capfd.readouterr().out


@pytest.mark.distributed
def test_joint_statistics_are_told_when_they_become_those_of_more_or_fewer_clips(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """2 processes with 2 clips each are 1 with 4; 1 with 2 is another thing."""
    for steps, ranks, micro in ((2, 2, 2), (3, 1, 4), (4, 1, 2)):
        settings = {"engine": "torch", "sync_batchnorm": True, "steps": steps, "micro_batch": micro}
        run_ranks(ranks, session, make_run(tmp_path, training=settings), "solo")
        told = capfd.readouterr().out
        assert ("BatchNorm" in told) is (steps == 4)
    assert "BatchNorm took its statistics of 4 clips, now of 2: losses will not be those of before" in told


def damage_truncate(folder: Path) -> None:
    path = folder / "objective.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def damage_flip(folder: Path) -> None:
    path = folder / "optimizer-00000.safetensors"
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
    assert set(manifest["files"]) == {"optimizer-00000.safetensors", "objective.safetensors", "rank-00000.pt"}


class Starved(Memory):
    """From micro-batch `first` to `until`, rank 1 can write no file longer than 20 kB: the system refuses it, as on a full disk."""

    def __init__(self, data: Data, *, first: int, until: int, **arguments: Any) -> None:
        super().__init__(data, **arguments)
        self.first, self.until = first, until
        self.ended = threading.Semaphore(0)  # writes of checkpoints, well or not
        write = Part.write

        def counted(part: Part, target: Path) -> None:
            try:
                write(part, target)
            finally:
                self.ended.release()

        Part.write = counted  # type: ignore[method-assign] # in a rank's own process

    def __iter__(self) -> Iterator[Clip]:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        for index, clip in enumerate(super().__iter__()):
            if self.arguments["rank"] == 1 and index in (self.first, self.until):
                assert self.ended.acquire(timeout=60), "the write that was under way"
                limit = 20_000 if index == self.first else resource.RLIM_INFINITY
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            yield clip


def starved(rank: int, run: Run, first: int, until: int) -> str | int:
    try:
        return train(run, Solo(width=256), open_stream=partial(Starved, first=first, until=until), quiet=True).steps
    except ValueError as error:
        return str(error)
    finally:  # the harness writes a file, too
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@pytest.mark.distributed
@pytest.mark.parametrize("background", [True, False])
def test_a_save_that_fails_on_one_rank_is_made_up_for_by_the_next(
    background: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = {"zero_stage": 1, "checkpoint_every": 2, "steps": 8, "async_checkpoints": background}
    run = make_run(tmp_path, training=settings)
    assert run_ranks(2, starved, run, 2 * 3, 2 * 5) == [8, 8]
    told = capfd.readouterr().out
    assert "the checkpoint of step 4 could not be written" in told
    assert "File too large" in told
    assert "training goes on" in told
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step-00000006", "step-00000008"]


@pytest.mark.distributed
def test_a_disk_that_stays_full_ends_the_run_on_all_ranks_and_spares_the_last_checkpoint(tmp_path: Path) -> None:
    run = make_run(tmp_path, training={"zero_stage": 1, "checkpoint_every": 2, "steps": 12})
    for text in run_ranks(2, starved, run, 2 * 3, 10**6):
        assert "step 8 could not be written" in str(text)
        assert "the last good one is intact" in str(text)
    assert [p.name for p in (tmp_path / "checkpoints").glob("step-*")] == ["step-00000002"]
    assert run_ranks(2, starved, run, 10**6, 10**6) == [12, 12]


@pytest.mark.distributed
def test_a_full_disk(tmp_path: Path) -> None:
    """A real one: a file system of 2 MB, which a few checkpoints fill."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True, text=True)
    if mount.returncode:
        pytest.skip(f"no file system can be mounted here: {mount.stderr.strip()}")
    try:
        settings = {"zero_stage": 1, "checkpoint_every": 1, "steps": 9, "keep_checkpoints": 9}
        for text in run_ranks(2, starved, make_run(folder, training=settings), 10**6, 10**6):
            assert "No space left on device" in str(text)
        kept = sorted((folder / "checkpoints").glob("step-*"))
        assert len(kept) >= 1
        assert all((path / "complete.json").exists() for path in kept)
    finally:
        subprocess.run(["umount", folder], check=True)


def test_non_finite_steps_are_counted_and_too_many_end_the_run(tmp_path: Path) -> None:
    one = make_run(tmp_path / "one", training={"engine": "torch", "steps": 3})
    summary = alone(one, poison=(9,))  # a position of step 2
    assert summary.skipped == 1
    assert [line["loss"] is None for line in read_lines(tmp_path / "one/metrics.jsonl")] == [False, True, False]
    guard = {"rollback_after": 5, "max_rollbacks": 0}
    many = make_run(tmp_path / "many", training={"engine": "torch", "steps": 30, "guard": guard})
    with pytest.raises(ValueError, match=r"5 updates in a row were skipped .* weights are those of step 3"):
        alone(many, poison=tuple(range(24, 8 * 30)))


@pytest.mark.distributed
@pytest.mark.parametrize(("engine", "stage"), [("torch", 0), ("deepspeed", 1), ("deepspeed", 3)])
def test_a_row_of_skipped_steps_rolls_back_and_goes_on(
    engine: str, stage: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Steps 6 to 8 give NaN on one rank: back to the weights of step 4, data and steps go on; resumed from any point it is the same."""
    guard = {"rollback_after": 3, "max_rollbacks": 1}
    settings = {"engine": engine, "zero_stage": stage, "steps": 10, "checkpoint_every": 2, "guard": guard}
    whole, broken = (make_run(tmp_path / name, training=settings) for name in ("whole", "broken"))
    poison = tuple(8 * step + 1 for step in (5, 6, 7))
    expected = run_ranks(2, poisoned, whole, poison, 10**6)
    assert "back to the weights of step 4; steps and data go on" in capfd.readouterr().out
    assert [summary.skipped for summary, _ in expected] == [3, 3]
    run_ranks(2, poisoned, broken, poison, 2 * 7 + 1)
    for (_, wanted), (_, found) in zip(expected, run_ranks(2, poisoned, broken, poison, 10**6), strict=True):
        same(found, wanted)
    assert numbers(tmp_path / "broken") == numbers(tmp_path / "whole")


def poisoned(rank: int, run: Run, poison: tuple[int, ...], batches: int) -> Any:
    try:
        return session(rank, run, "solo", poison=poison, batches=batches)
    except ConnectionError:
        return None


@pytest.mark.distributed
@pytest.mark.parametrize(("engine", "stage"), [("torch", 0), ("deepspeed", 0), ("deepspeed", 2), ("deepspeed", 3)])
def test_a_loss_spike_is_skipped(engine: str, stage: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Clips a thousand times too bright on one rank at step 15 change no weight, on any rank."""
    guard = {"spike": 20.0, "window": 10}
    settings = {"engine": engine, "zero_stage": stage, "steps": 15, "guard": guard}
    spared = run_ranks(2, bright, make_run(tmp_path / "spared", training=settings), (8 * 14 + 1,))
    assert "step 15: loss spike, update skipped" in capfd.readouterr().out
    before = run_ranks(2, bright, make_run(tmp_path / "before", training={**settings, "steps": 14}), ())
    for (_, found), (_, wanted) in zip(spared, before, strict=True):
        same(found, wanted)


class Bright(Memory):
    """Clips at some positions are a thousand times too bright."""

    def __init__(self, data: Data, *, glare: tuple[int, ...], **arguments: Any) -> None:
        super().__init__(data, **arguments)
        self.glare = {f"clip-{position}" for position in glare}

    def __iter__(self) -> Iterator[Clip]:
        for clip in super().__iter__():
            if self.glare & set(clip.key):
                clip.video.mul_(1000)
            yield clip


def bright(rank: int, run: Run, glare: tuple[int, ...]) -> tuple[Any, State]:
    """Weights and BatchNorm's statistics, which must not have taken in the clips either."""
    torch.manual_seed(0)
    objective = Solo(norm="batch")
    summary = train(run, objective, open_stream=partial(Bright, glare=glare), quiet=True)
    return summary, {name: value.clone() for name, value in objective.state_dict().items()}


@pytest.mark.distributed
@pytest.mark.parametrize("sync", [False, True])
@pytest.mark.parametrize(("engine", "stage"), [("torch", 0), ("deepspeed", 1)])
def test_nan_leaves_no_trace_in_batch_norm(engine: str, stage: int, sync: bool, tmp_path: Path) -> None:
    settings = {"engine": engine, "zero_stage": stage, "steps": 3, "sync_batchnorm": sync}
    for _, state in run_ranks(2, poisoned, make_run(tmp_path, training=settings), (9,), 10**6):
        assert all(bool(value.isfinite().all()) for value in state.values())


def test_frozen_weights_of_an_earlier_run_stay_after_a_resume(tmp_path: Path) -> None:
    """They come from `begin` alone, which a run that goes on does not call."""

    def begin(objective: Objective) -> None:
        with torch.no_grad():
            objective.get_parameter("scale").fill_(0.125)

    for steps in (2, 4):
        objective = game("solo")
        objective.get_parameter("scale").requires_grad_(False)
        run = make_run(tmp_path, training={"engine": "torch", "steps": steps})
        train(run, objective, open_stream=Memory, begin=begin, quiet=True)
        begin = pytest.fail  # type: ignore[assignment]
        assert bool((objective.get_parameter("scale") == 0.125).all())
    held = load_file(tmp_path / "checkpoints/step-00000004/objective.safetensors")
    assert bool((held["scale"] == 0.125).all())


def reporting(rank: int, run: Run) -> str:
    def report(metrics: dict[str, float]) -> None:
        raise RuntimeError("the sweep has seen enough")

    with pytest.raises((RuntimeError, ValueError)) as caught:
        train(run, Solo(), report, open_stream=Memory, quiet=True)
    return str(caught.value)


@pytest.mark.distributed
def test_a_report_that_raises_ends_all_ranks(tmp_path: Path) -> None:
    for text in run_ranks(2, reporting, make_run(tmp_path, training={"engine": "torch"})):
        assert "the sweep has seen enough" in text


def group_timeout(rank: int, run: Run) -> float:
    """Seconds that DeepSpeed's own groups wait."""
    from deepspeed.utils import groups
    from torch.distributed import distributed_c10d

    world = start(run.training)
    working = Solo()
    engine = build_engine(run, working, "model", world)
    group = groups._clone_world_group()
    options = distributed_c10d._world.pg_map[group] and group._get_backend(world.device).options
    engine.close()
    return float(options._timeout.total_seconds())


@pytest.mark.distributed
def test_deepspeeds_groups_wait_longer_than_the_watchdog(tmp_path: Path) -> None:
    run = make_run(tmp_path, training={"zero_stage": 1, "hang_timeout": 7200.0})
    assert all(seconds >= 2 * 7200 for seconds in run_ranks(2, group_timeout, run))


class SlowStore:
    """A mirror that takes its time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def send(self, folder: Path, keep_also: Collection[str] = ()) -> None:
        time.sleep(1.5)
        (self.folder / f"sent-{folder.name}").touch()

    def newest(self, before: int | None = None) -> tuple[int, str] | None:
        return None

    def fetch(self, name: str, into: Path) -> Path:
        raise AssertionError


def mirrored(rank: int, run: Run) -> bool:
    """Whether everything had been sent when this rank came to its end."""
    folder = run.run.folder.parent
    copies = SlowStore(folder) if rank == 0 else None
    train(run, Solo(), open_stream=partial(Cut, batches=3, number=signal.SIGTERM), copies=copies, quiet=True)
    return (folder / "sent-step-00000002").exists()


@pytest.mark.distributed
def test_no_rank_leaves_before_the_mirror_has_the_last_checkpoint(tmp_path: Path) -> None:
    """A launcher that sees one rank leave ends the others."""
    assert run_ranks(2, mirrored, make_run(tmp_path / "run", training={"zero_stage": 1})) == [True, True]


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
