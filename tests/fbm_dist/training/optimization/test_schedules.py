"""Learning rates by hand."""

from __future__ import annotations

import math

import pytest

from fbm_dist.schema import Schedule
from fbm_dist.training.optimization.schedules import learning_rate


def rates(schedule: Schedule, steps: range | list[int], total: int = 100) -> list[float]:
    return [learning_rate(schedule, 1.0, step, total) for step in steps]


def test_warm_up_has_no_update_at_rate_zero_and_reaches_the_peak() -> None:
    assert rates(Schedule(warmup_steps=4), range(6)) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_constant_is_the_default() -> None:
    assert rates(Schedule(), [0, 1, 99]) == [1.0, 1.0, 1.0]


def test_cosine_from_peak_to_floor_over_what_the_warm_up_leaves() -> None:
    found = rates(Schedule(warmup_steps=20, decay="cosine", floor=0.1), [20, 40, 60, 100, 150])
    quarter = 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 4))
    assert found == pytest.approx([1.0, quarter, 0.55, 0.1, 0.1])


def test_step_is_a_staircase() -> None:
    """As the FBM code has it: half every 100,000 steps."""
    found = rates(Schedule(decay="step", gamma=0.5, every=100_000), [0, 99_999, 100_000, 200_000], 10**6)
    assert found == [1.0, 1.0, 0.5, 0.25]


def test_exponential_is_the_staircase_without_steps() -> None:
    found = rates(Schedule(warmup_steps=10, decay="exponential", gamma=0.5, every=10), [10, 15, 20, 40])
    assert found == pytest.approx([1.0, 0.5**0.5, 0.5, 0.125])


def test_piecewise_is_a_table() -> None:
    """DeepMask's, with 4,000 steps an epoch: 1e-3 for 50 epochs, 5e-4 to the 120th, then 1e-4."""
    found = rates(
        Schedule(decay="piecewise", milestones=((200_000, 0.5), (480_000, 0.1))),
        [0, 199_999, 200_000, 479_999, 480_000],
    )
    assert found == [1.0, 1.0, 0.5, 0.5, 0.1]
    assert rates(Schedule(decay="piecewise", warmup_steps=2, milestones=((3, 0.5),)), [1, 4, 5]) == [1.0, 1.0, 0.5]


def test_scales_with_the_peak() -> None:
    schedule = Schedule(warmup_steps=2, decay="cosine")
    assert learning_rate(schedule, 1e-4, 5, 10) == pytest.approx(1e-4 * learning_rate(schedule, 1.0, 5, 10))
