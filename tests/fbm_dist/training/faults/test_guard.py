"""What is a spike, by hand; what a row of skipped updates leads to; both exact through a checkpoint's JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from fbm_dist.schema import Guard, Run
from fbm_dist.training.distributed import start
from fbm_dist.training.faults.guard import NOT_FINITE, SPIKE, Recovery, SpikeGuard
from fbm_dist.training.game import Game
from tests.distributed import run_ranks
from tests.runs import make_run
from tests.toys import Solo, make_clip


def guard(losses: list[float], spike: float | None = 5.0, window: int = 20) -> SpikeGuard:
    made = SpikeGuard(Guard(spike=spike, window=window))
    for loss in losses:
        made.accept(loss)
    return made


def test_the_limit_by_hand() -> None:
    """Median 5.5; deviations .5 .5 1.5 1.5 ... 4.5 4.5 with median 2.5."""
    found = guard([float(n) for n in range(1, 11)])
    limit = 5.5 + 5 * 1.4826 * 2.5
    assert found.limit() == pytest.approx(limit)
    assert not found.judge(limit - 0.01)
    assert found.judge(limit + 0.01)
    assert not found.judge(-1e9), "a loss that falls is no spike"


def test_a_constant_loss_may_wiggle_by_the_floor() -> None:
    found = guard([2.0] * 20)
    assert found.limit() == pytest.approx(2 + 5 * 2e-3)
    assert guard([-2.0] * 20).limit() == pytest.approx(-2 + 5 * 2e-3)


def test_a_hinge_that_mostly_rests_at_zero_may_still_rise() -> None:
    """The MAD is 0, and a limit of 0 would skip every batch that has a gradient."""
    found = guard([0.0, 0.0, 0.0, 0.4] * 5)
    assert not found.judge(0.5)
    assert found.judge(50.0)
    assert not guard([0.0] * 20).judge(0.5), "a window of zeros judges nothing"


def test_nothing_is_judged_before_half_a_window_and_ten_losses() -> None:
    assert not guard([1.0] * 19, window=40).judge(1e9)
    assert guard([1.0] * 20, window=40).judge(1e9)
    assert not guard([1.0] * 9, window=10).judge(1e9)
    assert guard([1.0] * 10, window=10).judge(1e9)


def test_what_is_not_finite_is_harmful_always() -> None:
    for loss in (math.nan, math.inf, -math.inf):
        assert guard([], spike=None).judge(loss)
    assert not guard([1.0] * 20, spike=None).judge(1e30), "off"


def test_only_the_newest_window_counts() -> None:
    found = guard([100.0] * 20 + [1.0] * 20)
    assert found.judge(2.0)


def test_one_spike_changes_the_run_as_if_its_clips_had_not_been_there() -> None:
    """A blown-up batch in real training: skipped, and the weights are those of the same steps without it."""

    def trained(bad: int | None) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        objective = Solo()
        optimizer = torch.optim.Adam(objective.parameters(), lr=1e-3)
        judge = SpikeGuard(Guard(spike=8.0, window=20))
        for step in range(20):
            if bad is None and step == 15:
                continue
            clip = make_clip([8 * step + p for p in range(8)])
            clip.video.mul_(30.0 if step == bad else 1.0)
            optimizer.zero_grad()
            loss = objective("model", clip).total
            if judge.judge(loss.item()):
                assert step == bad
                continue
            loss.backward()
            optimizer.step()
            judge.accept(loss.item())
        return objective.state_dict()

    with_spike, without = trained(15), trained(None)
    assert all(torch.equal(with_spike[name], without[name]) for name in without)


def rounds(rank: int, runs: list[Run], bad: int | None) -> list[tuple[list[str], dict[str, torch.Tensor]]]:
    """16 steps of two micro-batches by each engine. In step `bad` rank 1's clips are blown up; None: that step is left out."""
    found = []
    for run in runs:
        world = start(run.training)
        torch.manual_seed(0)
        objective = Solo()
        game = Game(run, objective, world)
        told = []
        for step in range(16):
            if bad is None and step == 14:
                continue
            clips = [make_clip([8 * step + 4 * m + 2 * j + rank for j in range(2)]) for m in range(2)]
            if step == bad and rank == 1:
                clips[0].video.mul_(30.0)
            told.append(game.step(clips, step, 16, False).why)
        game.fill_objective(averaged=False)
        game.close()
        found.append((told, objective.state_dict()))
    return found


@pytest.mark.distributed
def test_one_ranks_spike_is_every_ranks_under_every_engine(tmp_path: Path) -> None:
    """Nobody's weights, moments or counts move: what follows is what follows without that step."""
    engines = [{"engine": "torch"}, *({"engine": "deepspeed", "zero_stage": stage} for stage in range(4))]
    guarded = {"guard": {"spike": 8.0, "window": 20}}
    runs = [make_run(tmp_path, training={"micro_batch": 2, **guarded, **engine}) for engine in engines]
    with_spike, without = run_ranks(2, rounds, runs, 14), run_ranks(2, rounds, runs, None)
    for spiked, plain in zip(with_spike, without, strict=True):
        for (told, weights), (_, expected) in zip(spiked, plain, strict=True):
            assert told == [""] * 14 + [SPIKE, ""]
            for name, value in expected.items():
                torch.testing.assert_close(weights[name], value, rtol=0, atol=1e-7)


def test_a_guard_goes_on_from_json_bit_for_bit() -> None:
    torch.manual_seed(0)
    losses = [float(x) for x in torch.rand(50).double() * 10 ** torch.randint(-9, 9, (50,)).double()]
    before = guard(losses)
    after = SpikeGuard(Guard(spike=5.0, window=20))
    after.restore(json.loads(json.dumps(before.state())))
    assert after.limit() == before.limit()
    for one in (before, after):
        one.accept(losses[0] / 3)
    assert after.state() == before.state()
    shorter = SpikeGuard(Guard(spike=5.0, window=10))
    shorter.restore(before.state())
    assert shorter.state()["losses"] == before.state()["losses"][-10:]


def row(recovery: Recovery, first: int, number: int, reason: str = NOT_FINITE) -> list[str]:
    return [recovery.skipped(first + i, reason) for i in range(number)]


def test_a_row_leads_to_rollbacks_and_then_to_the_end() -> None:
    recovery = Recovery(Guard(rollback_after=3, max_rollbacks=2))
    recovery.applied(1)
    for first in (2, 5):
        assert row(recovery, first, 3) == ["go on", "go on", "roll back"]
        recovery.rolled_back(weights_of=1)
    assert row(recovery, 8, 2, SPIKE) == ["go on", "go on"]
    with pytest.raises(
        ValueError, match=r"step 10: 3 updates in a row were skipped \(2 x loss spike, 1 x grad"
    ) as caught:
        recovery.skipped(10, NOT_FINITE)
    text = str(caught.value)
    assert "2 rollbacks have not helped; the weights are those of step 1;" in text
    assert "training.guard.spike" in text
    assert "\n" not in text
    assert caught.value.agreed  # type: ignore[attr-defined]


def test_single_skips_are_only_counted() -> None:
    recovery = Recovery(Guard(rollback_after=2))
    for step in range(1, 101):
        if step % 2:
            recovery.applied(step)
        else:
            assert recovery.skipped(step, NOT_FINITE) == "go on"
    assert (recovery.total, recovery.rollbacks) == (50, 0)


def test_without_rollbacks_the_first_row_ends_the_run_at_the_last_good_step() -> None:
    recovery = Recovery(Guard(rollback_after=2, max_rollbacks=0))
    recovery.applied(7)
    recovery.skipped(8, NOT_FINITE)
    with pytest.raises(ValueError, match=r"allows no rollback; the weights are those of step 7; lower optimizer.lr"):
        recovery.skipped(9, NOT_FINITE)


def test_a_rollback_that_helped_for_long_is_forgotten() -> None:
    """A month may have more than `max_rollbacks` bad days."""
    recovery = Recovery(Guard(rollback_after=1, max_rollbacks=1, window=10))
    step = 0
    for _ in range(5):
        step += 1
        assert recovery.skipped(step, SPIKE) == "roll back"
        recovery.rolled_back(weights_of=0)
        for _ in range(100):
            step += 1
            recovery.applied(step)
    recovery.skipped(step + 1, SPIKE)
    recovery.rolled_back(weights_of=0)
    for _ in range(99):
        recovery.applied(step)
    with pytest.raises(ValueError, match="1 rollback has not helped"):
        recovery.skipped(step + 1, SPIKE)


def test_a_level_that_stays_higher_is_not_skipped_for_ever() -> None:
    """The window keeps the old level; the row ends the run, and the message names the way out."""
    config = Guard(spike=5.0, window=20, rollback_after=10, max_rollbacks=3)
    judge, recovery = SpikeGuard(config), Recovery(config)
    for step in range(1, 21):
        judge.accept(1.0 + 0.01 * (step % 3))
        recovery.applied(step)

    def go_on() -> None:
        for step in range(21, 21 + 41):
            assert judge.judge(3.0)
            if recovery.skipped(step, SPIKE) == "roll back":
                recovery.rolled_back(20)

    with pytest.raises(ValueError, match=r"raise training.guard.spike if the loss has really moved"):
        go_on()
    assert recovery.total == 40


def test_counters_go_on_from_json() -> None:
    config = Guard(rollback_after=3, max_rollbacks=1)
    recovery = Recovery(config)
    recovery.applied(1)
    row(recovery, 2, 3)
    recovery.rolled_back(0)
    row(recovery, 5, 2, SPIKE)
    again = Recovery(config)
    again.restore(json.loads(json.dumps(recovery.state())))
    assert again.state() == recovery.state()
    with pytest.raises(ValueError, match=r"2 x loss spike, 1 x gradient not finite.* of step 0;"):
        again.skipped(7, NOT_FINITE)
