"""The gate: an alias moves by a figure that is at least as good, measured on the same data, or by force with a reason."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from fbm_dist import registry
from fbm_dist.registry.catalogue import entry, metrics_of
from fbm_dist.registry.client import connect

NAME = "fbm-encoder"
METRIC = "probes.motion.linear.clip"
ONE, TWO = f"models:/{NAME}/1", f"models:/{NAME}/2"


@pytest.fixture
def registered(uri: str, folders: list[Path]) -> str:
    for folder, loss in zip(folders[:2], (0.5, 0.25), strict=True):
        registry.register(NAME, folder, tracking_uri=uri, metrics={"loss": loss})
    return uri


def champion(address: str) -> str:
    resolved = registry.resolve(f"models:/{NAME}@champion", tracking_uri=address)
    assert resolved is not None
    return resolved.uri


def test_a_better_one_is_promoted_and_says_so(registered: str, measured: Callable[..., None]) -> None:
    measured(registered, {ONE: 0.5, TWO: 0.75})
    done = registry.promote_by(TWO, METRIC, by="ada", reason="for the paper", tracking_uri=registered)
    assert champion(registered) == TWO
    assert done.line() == f"{TWO} is champion now: {METRIC} 0.75, 0.5 before ({ONE})"
    tags = entry(connect(registered), TWO).tags
    assert {key: tags[f"promoted.champion.{key}"] for key in ("by", "why", "metric", "before")} == {
        "by": "ada",
        "why": "for the paper",
        "metric": f"{METRIC} (max)",
        "before": ONE,
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", tags["promoted.champion.at"])
    again = registry.promote_by(TWO, METRIC, tracking_uri=registered)
    assert not again.moved
    assert again.line() == f"{TWO} has the alias champion already"


@pytest.mark.parametrize(
    ("mine", "mode", "moves"), [(0.5, "max", True), (0.5, "min", True), (0.4, "max", False), (0.6, "min", False)]
)
def test_at_least_as_good(registered: str, measured: Callable[..., None], mine: float, mode: str, moves: bool) -> None:
    measured(registered, {ONE: 0.5, TWO: mine})
    if moves:
        registry.promote_by(TWO, METRIC, mode=mode, tracking_uri=registered)  # type: ignore[arg-type]
    else:
        with pytest.raises(ValueError, match=f"its {METRIC} is {mine}, and {ONE} has 0.5") as caught:
            registry.promote_by(TWO, METRIC, mode=mode, tracking_uri=registered)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
    assert (champion(registered) == TWO) == moves
    assert ("promoted.champion.at" in entry(connect(registered), TWO).tags) == moves


def test_a_figure_that_is_missing_is_named_with_what_measures_it(
    registered: str, measured: Callable[..., None]
) -> None:
    command = f"python launch/evaluate.py configs/evaluate/probes.yaml encoder={TWO} compare_with=[{ONE}] data.path=DIR"
    with pytest.raises(
        ValueError, match=re.escape(f"{TWO} has no metric {METRIC!r} (it has loss); measure it: {command}")
    ):
        registry.promote_by(TWO, METRIC, tracking_uri=registered)
    measured(registered, {TWO: 0.75})
    with pytest.raises(ValueError, match=f"{ONE} has no metric"):
        registry.promote_by(TWO, METRIC, tracking_uri=registered)
    assert champion(registered) == ONE


def test_figures_of_different_data_are_not_compared(registered: str, measured: Callable[..., None]) -> None:
    measured(registered, {ONE: 0.5}, data="shards")
    measured(registered, {TWO: 0.75}, data="easier")
    with pytest.raises(
        ValueError, match=f"measured on easier for {TWO} and on shards for {ONE}; measure both at once: python"
    ):
        registry.promote_by(TWO, METRIC, tracking_uri=registered)


def test_force_needs_a_reason_which_is_kept(registered: str) -> None:
    with pytest.raises(ValueError, match="force=true needs a reason"):
        registry.promote_by(TWO, METRIC, force=True, tracking_uri=registered)
    assert champion(registered) == ONE
    registry.promote_by(TWO, METRIC, force=True, reason="the first one leaks labels", tracking_uri=registered)
    assert champion(registered) == TWO
    assert entry(connect(registered), TWO).tags["promoted.champion.why"] == "forced: the first one leaks labels"


def test_an_alias_that_nobody_has(registered: str) -> None:
    done = registry.promote_by(TWO, "loss", mode="min", alias="challenger", tracking_uri=registered)
    assert done.line() == f"{TWO} is challenger now: loss 0.25, nobody before"
    assert entry(connect(registered), TWO).aliases == ("challenger",)
    assert champion(registered) == ONE
    with pytest.raises(ValueError, match="not in the registry"):
        registry.promote_by(f"models:/{NAME}/7", "loss", tracking_uri=registered)


def test_figures_among_tags() -> None:
    tags = {
        "metric.loss": "0.5",
        "metric.broken": "nan",
        "probes.run": "0" * 32,
        "probes.data": "shards",
        "probes.knn.clip": "0.25",
        "data.digest": "7",
        "steps": "100",
        "promoted.champion.at": "2026",
        "../evil.run": "0" * 32,
        "../evil.x": "1",
    }
    assert metrics_of(tags) == {"loss": 0.5, "probes.knn.clip": 0.25}
