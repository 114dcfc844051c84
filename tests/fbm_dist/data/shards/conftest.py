"""Served shards, caches and other processes for the tests of this room."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from data_tools import places
from fbm_dist.data.shards.cache import ShardCache
from tests.fbm_dist.data.shards.served import SIZE, Served, served


@pytest.fixture
def eight() -> Iterator[Served]:
    """Eight shards."""
    with served(8) as shards:
        yield shards


@pytest.fixture
def cache_of(tmp_path: Path) -> Callable[..., ShardCache]:
    """A cache in a folder of its own for so many shards."""

    def make(shards: int, folder: str = "cache") -> ShardCache:
        return ShardCache(tmp_path / folder, shards * SIZE)

    return make


@pytest.fixture(scope="module")
def others() -> Iterator[ProcessPoolExecutor]:
    """Four processes, gone when the file is done: other tests count what is left behind."""
    with ProcessPoolExecutor(4, multiprocessing.get_context("spawn")) as pool:
        yield pool


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failed transfers are tried again at once."""
    monkeypatch.setattr(places, "time", SimpleNamespace(sleep=lambda seconds: None))
