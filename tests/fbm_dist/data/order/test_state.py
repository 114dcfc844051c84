"""What a resumed run refuses, and how it says so."""

from __future__ import annotations

import pytest

from data_tools.config import Config
from fbm_dist.data.order.state import LoaderState

STATE = LoaderState(
    epoch=1, consumed=64, seed=3, dataset_digest="aa.bb.cc", global_batch=16, decoder="dali-cpu", snapshot="1"
)


def test_state_survives_json_and_ignores_how_far_a_run_is() -> None:
    again = LoaderState.model_validate_json(STATE.model_dump_json())
    assert again == STATE
    assert isinstance(again, Config)
    again.check(STATE.model_copy(update={"epoch": 9, "consumed": 640}))


@pytest.mark.parametrize(
    ("change", "named", "not_named"),
    [
        ({"seed": 4}, ["run.seed was 3, now 4"], ["digest", "global_batch", "decoder"]),
        ({"global_batch": 8}, ["training.global_batch was 16, now 8"], ["digest", "seed", "decoder"]),
        ({"decoder": "pyav"}, ["data.decode was dali-cpu, now pyav"], ["digest", "seed", "global_batch"]),
        ({"shuffle": "blocks of 4 shards"}, ["data.shuffle was global, now blocks of 4 shards"], ["digest", "seed"]),
        (
            {"dataset_digest": "aa.xx.cc"},
            ["data.filter changed (digest aa.bb.cc"],
            ["data.clip", "the data set", "seed"],
        ),
        ({"dataset_digest": "aa.bb.xx"}, ["data.clip changed"], ["data.filter", "the data set"]),
        (
            {"dataset_digest": "xx.bb.cc", "snapshot": "2", "seed": 0},
            ["the data set changed", "data.snapshot=1 pins", "run.seed was 3, now 0"],
            ["data.filter", "data.clip"],
        ),
    ],
)
def test_each_difference_is_named_and_no_other(
    change: dict[str, object], named: list[str], not_named: list[str]
) -> None:
    with pytest.raises(ValueError, match="does not continue this run's data") as told:
        STATE.check(STATE.model_copy(update=change))
    text = str(told.value)
    assert all(name in text for name in named)
    assert not any(name in text for name in not_named)
    assert "\n" not in text
