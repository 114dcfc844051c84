"""How long training stands still for a checkpoint, written before it goes on or by a thread: `python benchmarks/checkpoints.py`.

FBM with about `--parameters` parameters at 64x64 under ZeRO-1, fp32, one clip per process and step on the CPU, in 1 and in 2
processes; clips come from memory. Stall: seconds within a step in which the trainer waits for checkpoints (`checkpoint_stall` of
metrics.jsonl), per save, mean over the ranks; the last save of a run, which has to be waited for, is left out. The share of the
training time is what the stall would come to with a save every `training.checkpoint_every` = 500 such steps. A thread that hashes
and writes also takes processor time from the steps beside it; on CPUs that is not in these figures.
Prints a table, then one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the tests' forked ranks are not installed

from fbm_dist.clip import Clip
from fbm_dist.objectives.fbm.config import FBMConfig
from fbm_dist.schema import Run, Training
from fbm_dist.training.checkpoints.marker import read_manifest
from fbm_dist.training.monitoring.metrics import NAME, read_lines
from fbm_dist.training.trainer import train
from tests.distributed import run_ranks
from tests.runs import make_run
from tests.toys import Memory

FRAMES = 16
SIZE: Literal[64] = 64
USUAL = Training.model_fields["checkpoint_every"].default


@dataclass(frozen=True)
class Figures:
    """Of one run."""

    parameters: int
    bytes: int  # of a checkpoint
    step: float  # seconds of a step that waits for no checkpoint, median
    stall: float  # seconds a save

    @property
    def of_step(self) -> float:
        """The stall in steps."""
        return self.stall / self.step

    @property
    def of_training(self) -> float:
        """The stall's share of the time, with a save every USUAL steps."""
        return self.stall / (self.stall + USUAL * self.step)


class Still(Memory):
    """The same random clip without end: reading costs nothing."""

    def __iter__(self) -> Iterator[Clip]:
        number = self.arguments["micro_batch"]
        video = torch.rand(number, 3, FRAMES, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
        frames = torch.arange(FRAMES).repeat(number, 1)
        film = torch.arange(number)
        mask = (video[:, :1] > 0).float()
        clip = Clip(video, mask, None, frames, film, tuple(map(str, range(number))), {})
        while True:
            yield clip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--parameters", type=float, default=30e6)
    parser.add_argument("--saves", type=int, default=4, help="that are measured in each run")
    parser.add_argument("--every", type=int, default=12, help="steps between two saves")
    parser.add_argument("--folder", type=Path, help="where checkpoints are written for the time being; default: TMPDIR")
    chosen = parser.parse_args()
    width = width_for(chosen.parameters)
    found: dict[tuple[int, bool], Figures] = {}
    for ranks in (1, 2):
        for background in (False, True):
            with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
                arguments = (Path(folder), width, chosen.saves, chosen.every, background)
                found[ranks, background] = run_ranks(ranks, measure, *arguments, timeout=1800)[0]
        # Both do the same steps: the quicker median is the one that other programs disturbed less.
        step = min(found[ranks, background].step for background in (False, True))
        for background in (False, True):
            found[ranks, background] = replace(found[ranks, background], step=step)
    show(found)
    print(json.dumps(figures(found)))


def width_for(parameters: float) -> float:
    """The width of an FBM of about so many parameters, by bisection: channels are whole numbers, so no formula is exact."""
    low, high = 0.01, 4.0
    while high / low > 1.01:
        middle = (low * high) ** 0.5
        with torch.device("meta"):
            smaller = sum(p.numel() for p in FBMConfig(size=SIZE, width=middle).build().parameters()) < parameters
        low, high = (middle, high) if smaller else (low, middle)
    return high


def measure(rank: int, folder: Path, width: float, saves: int, every: int, background: bool) -> Figures:
    """One run on this rank; rank 0's figures count."""
    world = torch.distributed.get_world_size()
    training = {"steps": every * saves + every // 2 + 1, "global_batch": world, "micro_batch": 1, "zero_stage": 1}
    training |= {"checkpoint_every": every, "async_checkpoints": background}
    run: Run = make_run(folder, training=training)
    torch.manual_seed(0)
    objective = FBMConfig(size=SIZE, width=width).build()
    train(run, objective, open_stream=Still, quiet=True)
    if rank:
        return Figures(0, 0, 0.0, 0.0)
    lines = read_lines(folder / NAME)
    last = run.training.steps
    manifest = read_manifest(folder / f"checkpoints/step-{last:08d}")
    assert manifest is not None, "the last checkpoint is whole, or `train` would have raised"
    ends = [line["seconds"] for line in lines]
    seconds = [after - before for before, after in pairwise(ends)]
    stalls = [line["checkpoint_stall"] for line in lines[1:]]
    # A thread that writes takes processor time from the steps beside it: only steps far from a save are undisturbed.
    quiet = [s for s, line in zip(seconds, lines[1:], strict=True) if line["step"] <= every and line["step"] > 2]
    size = sum(size for size, _ in manifest["files"].values())
    return Figures(sum(p.numel() for p in objective.parameters()), size, statistics.median(quiet), sum(stalls) / saves)


def figures(found: dict[tuple[int, bool], Figures]) -> dict[str, object]:
    """For the line of JSON; by number of processes."""
    ranks = sorted({ranks for ranks, _ in found})

    def by_ranks(name: str, background: bool) -> dict[str, float]:
        return {str(number): round(getattr(found[number, background], name), 5) for number in ranks}

    return {
        "parameters": found[1, True].parameters,
        "megabytes": round(found[1, True].bytes / 1e6, 1),
        "stall_seconds_synchronous": by_ranks("stall", False),
        "stall_seconds_asynchronous": by_ranks("stall", True),
        "stall_steps_synchronous": by_ranks("of_step", False),
        "stall_steps_asynchronous": by_ranks("of_step", True),
        "share_of_training_asynchronous": by_ranks("of_training", True),
        "synchronous_to_asynchronous": {
            str(number): round(found[number, False].stall / max(found[number, True].stall, 1e-9), 1) for number in ranks
        },
    }


def show(found: dict[tuple[int, bool], Figures]) -> None:
    """The table for people."""
    table = Table("processes", "saved", "a step", "stall a save", "in steps", f"of {USUAL} steps")
    for (ranks, background), row in sorted(found.items()):
        how = "by a thread" if background else "at once"
        cells = (f"{row.step:.3f} s", f"{row.stall:.3f} s", f"{row.of_step:.2f}", f"{row.of_training:.3%}")
        table.add_row(str(ranks), how, *cells)
    one = found[1, True]
    Console().print(f"{one.parameters / 1e6:.1f}M parameters, checkpoints of {one.bytes / 1e6:.0f} MB")
    Console().print(table)


if __name__ == "__main__":
    main()
