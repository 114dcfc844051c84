"""Cached folders: made once however many ask, whole or not there, and nothing is left of those that were not finished."""

from __future__ import annotations

import errno
import platform
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fbm_dist.data.index.cache import built


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_one_makes_it_and_the_others_wait_for_it(tmp_path: Path) -> None:
    made: list[int] = []
    ready = threading.Barrier(4)

    def write(folder: Path) -> dict[str, Any]:
        made.append(threading.get_ident())
        time.sleep(0.05)  # the others are at the door by now
        np.save(folder / "numbers.npy", np.arange(3))
        return {"maker": len(made)}

    def ask(_: int) -> dict[str, Any]:
        ready.wait()
        return built(tmp_path / "cached", write)

    with ThreadPoolExecutor(4) as pool:
        told = list(pool.map(ask, range(4)))
    assert len(made) == 1
    assert [about["maker"] for about in told] == [1] * 4
    assert np.load(tmp_path / "cached/numbers.npy").tolist() == [0, 1, 2]


@pytest.mark.parametrize("harm", ["about.json", "numbers.npy"])
def test_what_is_not_whole_is_made_again(tmp_path: Path, harm: str) -> None:
    def write(folder: Path) -> dict[str, Any]:
        np.save(folder / "numbers.npy", np.arange(3))
        return {"said": "so"}

    built(tmp_path / "cached", write)
    (tmp_path / "cached" / harm).write_bytes(b"{half")
    assert built(tmp_path / "cached", write)["said"] == "so"
    assert np.load(tmp_path / "cached/numbers.npy").tolist() == [0, 1, 2]


def test_nothing_is_left_of_those_that_were_killed_or_failed(tmp_path: Path) -> None:
    killed = tmp_path / f".cached-{platform.node()}-x1y2"
    killed.mkdir()
    (killed / "rows.npy").write_bytes(b"half")

    def fail(folder: Path) -> dict[str, Any]:
        (folder / "rows.npy").write_bytes(b"half")
        raise ValueError("no such thing")

    with pytest.raises(ValueError, match="no such thing"):
        built(tmp_path / "cached", fail)
    assert names(tmp_path) == []
    at_work = [
        f".cached-{platform.node()}2-x1y2",
        f".cached2-{platform.node()}-x1y2",
    ]  # another machine, another folder
    for name in at_work:
        (tmp_path / name).mkdir()
    built(tmp_path / "cached", lambda folder: {})
    assert names(tmp_path) == [*at_work, "cached"]


def test_what_another_machine_made_meanwhile_is_left_alone(tmp_path: Path) -> None:
    """Where the folder is shared and the lock is not."""

    def write(folder: Path) -> dict[str, Any]:
        there = tmp_path / "cached"
        there.mkdir()
        (there / "about.json").write_text('{"maker": "the other", "sizes": {}}')
        return {"maker": "this one"}

    assert built(tmp_path / "cached", write)["maker"] == "the other"
    assert names(tmp_path) == ["cached"]


def test_a_full_disk_says_what_to_do(tmp_path: Path) -> None:
    def write(folder: Path) -> dict[str, Any]:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(ValueError, match="No space left on device; make room, or set FBM_CACHE"):
        built(tmp_path / "cached", write)
    assert names(tmp_path) == []
