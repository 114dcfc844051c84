"""Readers follow from the cores of the job, whoever says how many those are."""

from __future__ import annotations

import os

import pytest

from fbm_dist.data import machine
from fbm_dist.data.machine import CORES, Readers, cores, readers_of
from fbm_dist.schema import ClipSpec, Data


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """64 cores, without a quota."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    monkeypatch.setattr(machine.Path, "read_text", lambda _: "max 100000\n")
    monkeypatch.delenv(CORES, raising=False)
    return monkeypatch


def readers(device: str, ranks: int, **own: int) -> Readers:
    data = Data.model_validate({"path": "shards", "clip": ClipSpec(frames=16, size=64), "prefetch": 2, **own})
    return readers_of(data, "pyav", 4, device, ranks)


def test_a_share_of_the_node_is_the_smallest_of_what_is_said(node: pytest.MonkeyPatch) -> None:
    assert cores() == 64
    node.setattr(machine.Path, "read_text", lambda _: "600000 100000\n")
    assert cores() == 6, "the quota"
    node.setenv(CORES, "4")
    assert cores() == 4, "the trial's share"
    node.setenv(CORES, "32")
    assert cores() == 6, "a share is not more than there is"


def test_readers_of_a_trial_follow_from_its_share(node: pytest.MonkeyPatch) -> None:
    assert readers("cuda", 4).workers == 15
    node.setenv(CORES, "8")
    assert readers("cuda", 4).workers == 1, "two cores a rank, of which one is for training"
    assert readers("cpu", 1).workers == 4
    node.setenv(CORES, "0.5")
    assert readers("cpu", 1).workers == 1
    assert readers("cpu", 1, workers=3).workers == 3, "what the config says overrules"
