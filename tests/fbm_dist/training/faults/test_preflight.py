"""Preflight: what is wrong on one rank is named on all of them, nothing hangs, and a refused run leaves no trace."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fbm_dist.schema import Run
from fbm_dist.training.distributed import World, start
from fbm_dist.training.faults import hardware
from fbm_dist.training.faults.checks import checkpoints_bytes
from fbm_dist.training.faults.preflight import CHECKS, Report, preflight
from fbm_dist.training.faults.site import Row, Site
from tests.datasets import write_dataset
from tests.distributed import run_ranks
from tests.runs import make_run
from tests.toys import Duel, Memory, Solo


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data"), clips=4)


def alone(folder: Path, **training: Any) -> tuple[Run, World]:
    run = make_run(folder, training={"engine": "torch", **training})
    return run, start(run.training)


def rows(report: Report) -> dict[str, Row]:
    return {row.name: row for row in report.rows}


def test_one_process_on_real_data_leaves_folder_and_generators_alone(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(
        tmp_path / "runs" / "first",
        data={"path": str(data), "clip": {"size": 32, "frames": 8}},
        training={"engine": "torch"},
    )
    world = start(run.training)
    objective = Solo()
    torch.manual_seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1]  # beartype draws from Python's own in tests
    report = preflight(run, world, objective)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert set(CHECKS) <= set(rows(report))
    assert not report.errors
    assert rows(report)["data"].numbers["num_clips"] == 4
    clip = run.data.clip
    least = (
        run.training.micro_batch * clip.length * clip.size**2 * 3
    )  # decoded clips in each slot, once more than is read ahead
    assert rows(report)["shared memory"].numbers["needed_bytes"] > 2 * least
    assert not (tmp_path / "runs").exists()
    (line,) = [text for text in capsys.readouterr().out.splitlines() if "warning" not in text]
    assert line.startswith("preflight: versions equal, data ok (4 clips")
    assert "bf16 Conv3d right" in line


def test_only_writes_the_record_and_shows_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, world = alone(tmp_path / "run", preflight="only")
    report = preflight(run, world, Solo(), Memory)
    record = json.loads((tmp_path / "run" / "preflight.json").read_text())
    assert [row["name"] for row in record["rows"]] == [row.name for row in report.rows]
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["preflight.json"]
    shown = capsys.readouterr().out
    assert all(name in shown for name in CHECKS)


def test_a_record_of_numbers_that_are_not_finite_is_json(tmp_path: Path) -> None:
    Report((Row("bf16 Conv3d", "warning", "wrong", numbers={"largest_error": float("inf")}),)).write(tmp_path)
    (row,) = json.loads((tmp_path / "preflight.json").read_text(), parse_constant=pytest.fail)["rows"]
    assert row["numbers"] == {"largest_error": None}


def test_off_looks_at_nothing(tmp_path: Path) -> None:
    run, world = alone(tmp_path / "run", preflight="off")
    assert preflight(run, world, Solo()) == Report()  # the data set "nowhere" is not opened
    Report().write(tmp_path)
    assert not list(tmp_path.iterdir())


def test_errors_are_one_line_and_leave_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    run, world = alone(tmp_path / "file" / "run")
    with pytest.raises(ValueError, match=r"run folder: .*Not a directory.*; data: .*nowhere") as caught:
        preflight(run, world, Solo())
    assert "\n" not in str(caught.value)
    run, world = alone(tmp_path / "new" / "run")
    with pytest.raises(ValueError, match="nowhere"):
        preflight(run, world, Solo())
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("settings", "each"),
    [
        ({}, 12),  # fp32 weights, two Adam moments
        ({"optimizer": {"kind": "sgd"}}, 8),
        ({"training": {"ema_decay": 0.9}}, 16),
        ({"players": {"model": {"optimizer": {"kind": "sgd"}}}}, 8),
    ],
)
def test_checkpoints_are_sized_by_optimizer_and_average(tmp_path: Path, settings: dict[str, Any], each: int) -> None:
    objective = Solo()
    run = make_run(tmp_path, **settings)
    together = run.training.keep_checkpoints + 2
    assert checkpoints_bytes(run, objective) == together * each * sum(p.numel() for p in objective.parameters())


def test_players_are_sized_by_their_own_optimizers(tmp_path: Path) -> None:
    objective = Duel()
    run = make_run(tmp_path, players={"critic": {"optimizer": {"kind": "sgd"}}})
    critic = sum(p.numel() for p in objective.critic.parameters())
    model = sum(p.numel() for p in objective.model.parameters())
    assert checkpoints_bytes(run, objective) == 4 * (8 * critic + 12 * model)


def test_a_disk_too_small_is_an_error_less_what_is_there_already(tmp_path: Path) -> None:
    run, world = alone(tmp_path, keep_checkpoints=10**9)
    with pytest.raises(ValueError, match=r"disk: disk .* free \(.* needed\); .*keep_checkpoints"):
        preflight(run, world, Solo(), Memory)
    run, world = alone(tmp_path)
    needed = checkpoints_bytes(run, Solo())
    (tmp_path / "checkpoints" / "step-00000001").mkdir(parents=True)
    (tmp_path / "checkpoints" / "step-00000001" / "weights").write_bytes(bytes(needed // 4))
    report = preflight(run, world, Solo(), Memory)
    assert rows(report)["disk"].numbers["needed_bytes"] == needed - needed // 4


@pytest.mark.parametrize(("precision", "result"), [("bf16", "error"), ("fp32", "warning")])
@pytest.mark.parametrize("wrong", ["output", "input gradient", "weight gradient"])
def test_one_wrong_number_of_bf16_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, result: str, wrong: str
) -> None:
    """As cuDNN and oneDNN did: the kernel runs, and a few of its numbers are garbage."""
    right = F.conv3d

    def broken(video: Tensor, weight: Tensor, bias: Tensor, padding: int) -> Tensor:
        output = right(video, weight, bias, padding=padding)
        if not torch.is_autocast_enabled("cpu"):
            return output
        if wrong == "output":
            return output + (_spoil(output) - output).detach()
        gradient = {"input gradient": video, "weight gradient": weight}[wrong]
        gradient.register_hook(_spoil)
        return output

    monkeypatch.setattr(hardware.F, "conv3d", broken)
    run, world = alone(tmp_path, precision=precision)
    shapes = hardware.convolution_shapes(world.device, 2, 16, 128)
    errors = [one.errors for one in hardware.measure(shapes, world.device, used=precision == "bf16")]
    assert all((one[name] > hardware.BOUND) == (name == wrong) for one in errors for name in one)
    (row,) = hardware.convolution(_site(run, world))
    assert row.result == result
    assert wrong in row.figure


def _spoil(values: Tensor) -> Tensor:
    spoiled = values.clone()
    spoiled.view(-1)[values.numel() // 2] += values.abs().max()
    return spoiled


def _site(run: Run, world: World) -> Site:
    return Site(run, world, None, Memory, ["here"] * world.size)


def test_nan_is_no_small_error(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hardware._error(torch.tensor([1.0, float("nan")]), torch.ones(2)) == float("inf")
    assert hardware._error(torch.tensor([1.0, 1.5]), torch.tensor([1.0, 2.0])) == 0.25


def test_onednn_is_left_as_it_was() -> None:
    before = torch.backends.mkldnn.enabled
    hardware.measure([hardware.Shape(1, 2, 2, 2, 4)], torch.device("cpu"), used=False)
    assert torch.backends.mkldnn.enabled == before


def test_bus_bandwidth_by_hand() -> None:
    assert hardware.bus_bandwidth(10**9, 4, 0.5) == pytest.approx(3.0)  # 2 * 3/4 * 1 GB / 0.5 s


def _faulty(rank: int, folder: Path, data: Path) -> dict[str, Any]:
    """Several faults of rank 1, one preflight after the other in the same ranks: they must stay in step."""
    found: dict[str, Any] = {}

    def attempt(name: str, run: Run, stream: Callable[..., Any] | None = Memory) -> None:
        try:
            found[name] = preflight(run, world, Solo(), stream)
        except ValueError as error:
            found[name] = str(error)

    def other(value: Any, ours: Any) -> Any:
        return value if rank == 1 else ours

    run = make_run(folder / "run", data={"path": str(data), "clip": {"size": 32, "frames": 8}})
    world = start(run.training)
    attempt("fine", run, None)
    attempt("config", make_run(folder / "run", optimizer={"lr": other(3e-4, 1e-4)}))
    attempt("mode", make_run(folder / "run", training={"preflight": other("off", "on")}))
    attempt("folder", make_run(folder / other("b", "a")))
    attempt("stream", run, other(_refuse, Memory))
    attempt("digest", run, lambda data, **arguments: Memory(data, digest=f"d{rank}", **arguments))
    if rank == 1:
        hardware.time_product = lambda device: time_product(device) + 1
    attempt("straggler", run)
    found["left"] = sorted(p.name for p in folder.iterdir())
    return found


time_product = hardware.time_product


def _refuse(*arguments: Any, **named: Any) -> Any:
    raise OSError("stale file handle")


@pytest.mark.distributed
def test_what_one_rank_finds_all_ranks_tell(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fbm_dist.training.faults.checks.PATIENCE", 0.2)
    ours, theirs = run_ranks(2, _faulty, tmp_path, data)
    fine = rows(ours["fine"])
    assert ours["fine"].rows == theirs["fine"].rows
    assert not ours["fine"].errors
    assert fine["all-reduce"].numbers["gb_per_second_min"] > 0
    assert ours["left"] == []
    for name, pattern in (
        ("config", r"config: config differs: optimizer.lr is 0.0001 on rank 0 on \S+, 0.0003 on rank 1 on "),
        ("mode", r"config differs: training.preflight is 'on' .* 'off'"),
        ("folder", r"run folder: rank 1 on \S+: .*/b is not the folder that rank 0 sees; run.folder must be"),
        ("stream", r"data: rank 1 on \S+: stale file handle"),
        ("digest", r"data: the data's digest is 'd0' on rank 0 on \S+, 'd1' on rank 1"),
    ):
        assert ours[name] == theirs[name]
        assert re.search(pattern, ours[name])
    straggler = rows(ours["straggler"])["device speed"]
    assert straggler.result == "warning"
    assert "rank 1 on" in straggler.figure


def _late(rank: int, given_up: Path) -> str:
    tensor = torch.zeros(8)
    try:
        if rank == 1:
            while not given_up.exists():
                time.sleep(0.05)
        hardware.first_all_reduce(tensor, 2, limit=0.3 if rank == 0 else 60)
    except ValueError as error:
        given_up.touch()
        return str(error)
    finally:
        torch.distributed.barrier()  # the peer's all-reduce still needs this rank
    return ""


@pytest.mark.distributed
def test_a_network_that_lets_nothing_through_is_told_not_waited_for(tmp_path: Path) -> None:
    assert run_ranks(2, _late, tmp_path / "given-up") == ["the first all-reduce has not ended in 0 s", ""]
