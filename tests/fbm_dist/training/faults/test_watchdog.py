"""What hangs is named, and the job ends: with ranks that really sleep, are really stopped, and really hold Python's lock."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable

import pytest
import torch
import torch.distributed as dist

from fbm_dist.training.distributed import World
from fbm_dist.training.faults import watchdog as faults
from fbm_dist.training.faults.watchdog import HUNG, Heartbeat, Watchdog, judge
from tests.distributed import RankError, run_ranks

TIMEOUT = 2.0
PEERS = [(f"gpu{rank:02d}", 4700 + rank) for rank in range(8)]


def world_of(rank: int, size: int) -> World:
    return World(rank, rank, size, size, torch.device("cpu"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def steps(watchdog: Watchdog, number: int, hang: Callable[[], object] = lambda: None) -> None:
    """A loop of `number` steps with a collective in each; `hang` is called in the data phase of step 3."""
    for step in range(number):
        watchdog.beat(step, "data")
        if step == 3:
            hang()
        watchdog.beat(step, "backward")
        dist.all_reduce(torch.ones(1))


def train(rank: int, port: int, hanging: int, how: str) -> None:
    """A rank of two, joined as a launcher joins them: by a store that rank 0's process serves."""
    dist.destroy_process_group()
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    pids: list[int] = [0, 0]
    dist.all_gather_object(pids, os.getpid())

    def hang() -> None:
        if rank != hanging:
            return
        if how == "raises":
            raise KeyError("a defect")
        if how == "stops":
            os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(600)

    if rank == hanging and how != "sleeps":  # as a launcher does, kill it after the other's end
        watch = f"while kill -0 {pids[1 - rank]}; do sleep 0.05; done; kill -9 {pids[rank]}"
        subprocess.Popen(["sh", "-c", watch], stderr=subprocess.DEVNULL)
    try:
        with Watchdog(world_of(rank, 2), TIMEOUT) as watchdog:
            steps(watchdog, 6, hang)
    except KeyError:
        time.sleep(600)


@pytest.mark.distributed
def test_the_rank_that_hangs_is_named_and_all_ranks_end(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RankError) as caught:
        run_ranks(2, train, free_port(), 1, "sleeps")
    ends = str(caught.value)
    assert ends.count(f"died with status {HUNG << 8}") == 2, ends
    told = capfd.readouterr().err
    assert told.count("error: ") == 1, told
    assert re.search(r"error: no progress for \d+ s: rank 1 \(host \S+, pid \d+\) hangs", told), told
    assert 'hangs at step 3 in "data"; rank 0 waits at step 3 in "backward". The job ends; the same command' in told
    assert "in hang" in told, "rank 1's own stack"


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("lost", "how", "reason"),
    [
        (1, "raises", """left at step 3 in "data" with KeyError: 'a defect'; rank 0 waits at step 3 in """),
        (
            1,
            "stops",
            "is not answering (stopped, dead or cut off), last seen at step ",
        ),
        (0, "stops", "does not answer (its process or host is stopped, dead or cut off); rank 1 waits at step 3 in "),
    ],
)
def test_a_rank_that_is_stopped_or_has_failed_is_named_by_the_other(
    lost: int, how: str, reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RankError) as caught:
        run_ranks(2, train, free_port(), lost, how)
    ends = str(caught.value)
    assert f"rank {1 - lost}: died with status {HUNG << 8}" in ends, ends
    assert f"rank {lost}: died with status {signal.SIGKILL:d}" in ends, ends
    told = capfd.readouterr().err
    assert told.count("error: ") == 1, told
    assert f"rank {lost} (host " in told
    assert reason in told


def healthy(rank: int) -> str:
    """Slow steps, a phase without limit, one that says that it goes on, and ranks that come to the collective half a second apart."""
    with Watchdog(world_of(rank, 2), timeout=2.0) as watchdog:
        for step in range(4):
            watchdog.beat(step, "data")
            time.sleep(0.5 * rank)
            watchdog.beat(step, "backward")
            dist.all_reduce(torch.ones(1))
        with watchdog.paused():
            time.sleep(3)
        for _ in range(3 * (rank + 1)):  # a phase of many parts, more on one rank than on the other
            time.sleep(0.8 / (rank + 1))
            watchdog.touch()
        assert watchdog._heartbeat().beats == 9
    time.sleep(3)  # nobody looks any more
    dist.all_reduce(torch.ones(1))
    return "ended"


@pytest.mark.distributed
def test_slow_steps_and_pauses_are_left_alone() -> None:
    assert run_ranks(2, healthy) == ["ended", "ended"]


def alone(rank: int, how: str) -> None:
    faults.LAST_RESORT = 0.5
    with Watchdog(world_of(0, 1), timeout=0.5) as watchdog:
        watchdog.beat(7, "data")
        if how == "sleeps":
            time.sleep(600)
        ctypes.PyDLL(None).usleep(60_000_000)  # PyDLL keeps Python's lock: no other thread of the process runs


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("how", "status", "told"),
    [("sleeps", HUNG, 'hangs at step 7 in "data". The job ends'), ("keeps the lock", 1, "Timeout (0:00:01)!")],
)
def test_a_single_process_ends_too(how: str, status: int, told: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RankError, match=f"died with status {status << 8}"):
        run_ranks(1, alone, how)
    text = capfd.readouterr().err
    assert told in text
    assert "in alone" in text, "the stack"


def row(rank: int, beats: int, phase: str = "backward", idle: float = 700.0, **more: object) -> Heartbeat:
    return Heartbeat(rank, 1, beats, 1204, phase, idle, **more)  # type: ignore[arg-type]


def verdict(rows: list[Heartbeat], silent: tuple[int, ...] = ()) -> tuple[str, int, list[int]] | None:
    before = [Heartbeat(**{**vars(one), "posts": one.posts - (one.rank not in silent)}) for one in rows]
    found = judge(before, rows, PEERS, timeout=600.0, slack=6.0)
    return (found.text.removeprefix("error: no progress for 700 s: "), found.speaker, found.culprits) if found else None


END = ". The job ends; the same command goes on from the last checkpoint"


def test_the_fewest_beats_are_to_blame() -> None:
    rows = [row(rank, 50) for rank in range(8)]
    rows[3] = row(3, 48, "data", 702.0)
    text = 'rank 3 (host gpu03, pid 4703) hangs at step 1204 in "data"; ranks 0-2, 4-7 wait at step 1204 in "backward"'
    assert verdict(rows) == (text + END, 0, [3])
    rows[4] = row(4, 48, "data", 702.0)
    found = verdict(rows)
    assert found
    assert found[0].startswith("rank 3 (host gpu03, pid 4703) and rank 4 (host gpu04, pid 4704) hang at step 1204")


def test_silence_weighs_more_than_beats_and_an_error_more_than_silence() -> None:
    rows = [row(0, 50), row(1, 48, "data"), row(2, 50), row(3, 50)]
    text = (
        'rank 0 (host gpu00, pid 4700) is not answering (stopped, dead or cut off), last seen at step 1204 in "backward"; '
        'rank 1 waits at step 1204 in "data"; ranks 2-3 wait at step 1204 in "backward"'
    )
    assert verdict(rows, silent=(0,)) == (text + END, 1, [0])
    rows[2] = row(2, 50, left="RuntimeError: out of memory")
    found = verdict(rows, silent=(0,))
    assert found
    assert found[2] == [2]
    assert (
        'rank 2 (host gpu02, pid 4702) left at step 1204 in "backward" with RuntimeError: out of memory; ' in found[0]
    )


def test_nobody_is_blamed_where_all_wait() -> None:
    rows = [row(rank, 50) for rank in range(4)]
    found = verdict(rows)
    assert found
    assert found[0].startswith('ranks 0-3 wait at step 1204 in "backward" and none is behind')


@pytest.mark.parametrize("more", [{"idle": 500.0}, {"paused": True}])
def test_no_verdict_while_a_rank_goes_on(more: dict[str, float]) -> None:
    rows = [row(0, 50), row(1, 50), Heartbeat(**{**vars(row(2, 49)), **more})]
    assert verdict(rows) is None
    assert verdict(rows, silent=(0,)) is None
