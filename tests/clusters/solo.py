"""A run whose numbers do not depend on the number of processes (GroupNorm), on real shards, that writes down which clips it reads.

`deepspeed ... tests/clusters/solo.py DATA FOLDER PAUSE`: PAUSE seconds of rest with every micro-batch, as time to be killed in.
"""

from __future__ import annotations

import json
import os
import sys
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # started by a launcher, not imported by a test
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from fbm_dist.clip import Clip
from fbm_dist.data.loader import Loader
from fbm_dist.schema import Data
from fbm_dist.training.distributed import leave, seed_everything
from fbm_dist.training.trainer import train
from tests.runs import make_run
from tests.toys import FRAMES, Solo

STEPS = 24
GLOBAL_BATCH = 8
MICRO_BATCH = 2
CHECKPOINT_EVERY = 4
HANG_TIMEOUT = 20.0  # seconds; a start of two ranks on a loaded machine takes several


class Recorded(Loader):
    """The real loader; FOLDER/keys-WORLD-RANK.jsonl gets a line for every micro-batch that is taken from it."""

    def __init__(self, data: Data, *, folder: Path, pause: float, **arguments: Any) -> None:
        super().__init__(data, **arguments)
        world, rank = arguments["world_size"], arguments["rank"]
        self.place = arguments["consumed"]  # positions of the stream before the next micro-batch, over all ranks
        self.taken = MICRO_BATCH * world
        self.path, self.pause = folder / f"keys-{world}-{rank}.jsonl", pause

    def __iter__(self) -> Iterator[Clip]:
        for clip in super().__iter__():
            time.sleep(self.pause)
            with self.path.open("a") as file:
                file.write(json.dumps({"step": self.place // GLOBAL_BATCH + 1, "keys": clip.key}) + "\n")
            self.place += self.taken
            yield clip


def clips_read(folder: Path, world: int) -> dict[int, list[str]]:
    """step -> keys in the order of the stream's positions, of the steps that all `world` ranks have read in full."""
    ranks: list[dict[int, list[str]]] = []
    for rank in range(world):
        steps: dict[int, list[str]] = {}
        for line in (folder / f"keys-{world}-{rank}.jsonl").read_text().splitlines():
            read = json.loads(line)
            steps.setdefault(read["step"], []).extend(read["keys"])
        ranks.append({step: keys for step, keys in steps.items() if len(keys) == GLOBAL_BATCH // world})
    common = set.intersection(*(set(steps) for steps in ranks))
    # position s*G + m*B*W + j*W + r is rank r's: one clip of each rank after the other
    return {
        step: [key for row in zip(*(r[step] for r in ranks), strict=True) for key in row] for step in sorted(common)
    }


def train_solo(rank: int, data: Path, folder: Path, pause: float = 0.0) -> bool:
    """Train on every rank of the world; returns whether a signal ended it."""
    folder.mkdir(parents=True, exist_ok=True)
    run = make_run(
        folder,
        data={"path": str(data), "clip": {"frames": FRAMES, "size": 16, "mask": False}},
        training={
            "steps": STEPS,
            "global_batch": GLOBAL_BATCH,
            "micro_batch": MICRO_BATCH,
            "checkpoint_every": CHECKPOINT_EVERY,
            "hang_timeout": HANG_TIMEOUT,
        },
    )
    seed_everything(0)  # the same first weights on every rank
    return train(run, Solo(norm="group"), open_stream=partial(Recorded, folder=folder, pause=pause)).interrupted


if __name__ == "__main__":
    parser = ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("pause", type=float)
    parser.add_argument("--local_rank")
    given = parser.parse_args()
    interrupted = train_solo(int(os.environ["RANK"]), given.data, given.folder, given.pause)
    leave()
    sys.exit(75 if interrupted else 0)
