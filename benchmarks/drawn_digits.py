"""Pretrains on Moving MNIST that is drawn as it is needed: no films, no decoding, every clip another pair of digits (as the authors do).

    python benchmarks/drawn_digits.py CONFIG --train MNIST.npz [--digits 1] run.folder=DIR [a.b=c ...]

The run is that of launch/pretrain.py but for its data and its registration; benchmarks/moving_mnist.py measures what it leaves.
Ends with one line of JSON. A run that a signal stops ends with status 1: who waits for it must not take it for finished.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from data_tools.synthetic.config import MovingMnist, Split
from data_tools.synthetic.digits import cast, enlarged, paint, path, read
from fbm_dist.clip import Clip
from fbm_dist.config import load
from fbm_dist.data.order.state import LoaderState
from fbm_dist.run import begin_from
from fbm_dist.schema import ClipSpec, Data, Run
from fbm_dist.training.distributed import seed_everything
from fbm_dist.training.trainer import train


class Drawn:
    """An endless stream of clips, each a function of its position; film p is all of clip p."""

    num_clips = 60_000  # an epoch, so to say
    decoder, digest = "drawn", "moving_mnist"
    undecodable = 0

    def __init__(self, data: Data, *, settings: MovingMnist, consumed: int, **arguments: Any) -> None:
        self.settings, self.spec, self.consumed, self.arguments = settings, data.clip, consumed, arguments

    def agree(self, gather: Any, pinned: str | None = None) -> None:
        """There is nothing to choose."""

    def state(self, consumed: int) -> LoaderState:
        """Where the stream is."""
        return LoaderState(
            epoch=consumed // self.num_clips,
            consumed=consumed,
            seed=self.arguments["seed"],
            dataset_digest=self.digest,
            global_batch=self.arguments["global_batch"],
            decoder=self.decoder,
        )

    def __iter__(self) -> Iterator[Clip]:
        rank, world, micro = (self.arguments[k] for k in ("rank", "world_size", "micro_batch"))
        start = self.consumed
        while True:
            yield drawn_clip(self.settings, self.spec, [start + j * world + rank for j in range(micro)])
            start += micro * world

    def close(self) -> None:
        """There is nothing to close."""


def drawn_clip(settings: MovingMnist, spec: ClipSpec, positions: list[int]) -> Clip:
    """One clip for each position."""
    videos, frames = [], []
    for position in positions:
        who = cast(settings, position, "train")
        digits = np.stack([enlarged(image) for image in read(settings.train)[0][who.number]])
        places = path(who.start, who.speed, spec.span)
        rng = np.random.default_rng([settings.seed, 6, position])
        chosen = rng.permutation(spec.span)[: spec.frames] if spec.within else np.arange(spec.span)[:: spec.stride]
        videos.append(np.stack([paint(digits, places[t], who.order) for t in chosen]))
        frames.append(chosen)
    return Clip(
        video=torch.from_numpy(np.stack(videos)).permute(0, 4, 1, 2, 3).float() / 127.5 - 1,
        mask=None,
        truth=None,
        frames=torch.from_numpy(np.stack(frames)),
        film=torch.tensor(positions),
        key=tuple(f"clip-{p}" for p in positions),
        labels={},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="a.b=c")
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--digits", type=int, default=2)
    given = parser.parse_intermixed_args()
    run = load(
        Run, given.config, ["data.path=drawn", "tracking.mlflow=false", "training.engine=torch", *given.overrides]
    )
    run.objective.check_clip(run.data.clip)
    settings = MovingMnist.model_validate(
        {
            "kind": "moving_mnist",
            "output": Path("unused"),
            "train": given.train,
            "seed": run.run.seed,
            "digits": given.digits,
            "split": Split(test=0),
        }
    )
    run.run.folder.mkdir(parents=True, exist_ok=True)
    (run.run.folder / "config.yaml").write_text(run.model_dump_json(indent=1))
    seed_everything(run.run.seed)
    objective = run.objective.build()

    def begin(fresh: Any) -> None:
        from fbm_dist.training.distributed import start

        begin_from(run, start(run.training), None, fresh)

    began, used = time.monotonic(), time.process_time()
    summary = train(
        run,
        objective,
        open_stream=partial(Drawn, settings=settings),
        picture_clip=lambda data, device: drawn_clip(settings, data.clip, list(range(10**6, 10**6 + 8))).to(device),
        begin=begin,
    )
    if summary.interrupted:
        sys.exit(f"stopped after {summary.steps} steps, before its end; the same command goes on")
    cost = {"seconds": time.monotonic() - began, "core_seconds": time.process_time() - used}
    print(json.dumps({"steps": summary.steps, "clips": summary.clips, **cost, **summary.metrics}))


if __name__ == "__main__":
    main()
