"""Pretrains on Moving MNIST that is drawn as it is needed: no films, no decoding, every clip another pair of digits (as the authors do).

    python benchmarks/drawn_digits.py CONFIG --train MNIST.npz [--digits 1] [--workers 8] run.folder=DIR [a.b=c ...]

Who plays in a clip and where is a function of its position, computed by `--workers` processes ahead of time (0: in this one); the run's
device paints.

The run is that of launch/pretrain.py but for its data and its registration; benchmarks/moving_mnist.py measures what it leaves.
Ends with one line of JSON. A run that a signal stops ends with status 1: who waits for it must not take it for finished.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import sys
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from data_tools.synthetic.config import MovingMnist, Split
from data_tools.synthetic.digits import DIGIT, SIDE, cast, enlarged, path, read
from fbm_dist.clip import Clip
from fbm_dist.config import load
from fbm_dist.data.order.state import LoaderState
from fbm_dist.run import begin_from
from fbm_dist.schema import ClipSpec, Data, Run
from fbm_dist.training.distributed import seed_everything
from fbm_dist.training.trainer import train


@dataclass(frozen=True)
class Scripts:
    """What happens in some clips: places of digits in the file, of their corners in each frame, who stands in front, which frames."""

    positions: list[int]
    numbers: np.ndarray  # (b, d)
    places: np.ndarray  # (b, t, d, 2): row and column
    order: np.ndarray  # (b, d): from the rearmost to the one in front
    frames: np.ndarray  # (b, t)


def written(settings: MovingMnist, spec: ClipSpec, positions: list[int]) -> Scripts:
    """One clip for each position."""
    casts = [cast(settings, position, "train") for position in positions]
    frames = []
    for position in positions:
        rng = np.random.default_rng([settings.seed, 6, position])
        frames.append(
            rng.permutation(spec.span)[: spec.frames] if spec.within else np.arange(spec.span)[:: spec.stride]
        )
    places = [path(who.start, who.speed, spec.span)[chosen] for who, chosen in zip(casts, frames, strict=True)]
    numbers, order = (np.stack([getattr(who, name) for who in casts]) for name in ("number", "order"))
    return Scripts(positions, numbers, np.stack(places), order, np.stack(frames))


def painted(digits: Tensor, scripts: Scripts) -> Clip:
    """The clips on the device of `digits`, uint8 (n, 32, 32): all of the file. Pixel for pixel `data_tools.synthetic.digits.paint`."""
    device = digits.device
    chosen = digits[torch.from_numpy(scripts.numbers).to(device)]  # b d 32 32
    corner = torch.from_numpy(scripts.places).to(device)[..., None] - torch.arange(SIDE, device=device)  # b t d 2 64
    inside, within = (corner <= 0) & (corner > -DIGIT), (-corner).clamp(0, DIGIT - 1)
    batch, times = scripts.frames.shape
    video = torch.zeros(batch, 3, times, SIDE, SIDE, dtype=torch.uint8, device=device)
    every, order = torch.arange(batch, device=device), torch.from_numpy(scripts.order).to(device)
    for i in order.T:  # (b,): the channel that is painted next in each clip
        rows, columns = within[every, :, i].unbind(2)  # b t 64
        pixels = chosen[every, i][every[:, None, None, None], rows[..., None], columns[..., None, :]]
        there = inside[every, :, i]
        pixels = pixels * (there[:, :, 0, :, None] & there[:, :, 1, None, :])  # b t 64 64
        video *= (pixels == 0)[:, None]
        video[every, i] = torch.maximum(video[every, i], pixels)
    return Clip(
        video=video.float() / 127.5 - 1,
        mask=None,
        truth=None,
        frames=torch.from_numpy(scripts.frames).to(device),
        film=torch.tensor(scripts.positions, device=device),
        key=tuple(f"clip-{p}" for p in scripts.positions),
        labels={},
    )


def all_digits(file: Path, device: torch.device) -> Tensor:
    """(n, 32, 32) uint8: a file's digits at the size in which they move."""
    return torch.from_numpy(np.stack([enlarged(image) for image in read(file)[0]])).to(device)


class Drawn:
    """An endless stream of clips, each a function of its position; film p is all of clip p."""

    num_clips = 60_000  # an epoch, so to say
    decoder, digest = "drawn", "moving_mnist"
    undecodable = 0

    def __init__(
        self,
        data: Data,
        *,
        settings: MovingMnist,
        workers: int,
        consumed: int,
        device: torch.device,
        **arguments: Any,
    ) -> None:
        self.settings, self.spec, self.consumed, self.arguments = settings, data.clip, consumed, arguments
        self.digits = all_digits(settings.train, device)
        spawn = multiprocessing.get_context("spawn")
        self.workers = ProcessPoolExecutor(workers, mp_context=spawn) if workers else None
        self.ahead = 4 * workers

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
        if self.workers is None:
            yield from (painted(self.digits, written(self.settings, self.spec, there)) for there in self._positions())
            return
        positions = self._positions()
        waiting = deque(self._write(next(positions)) for _ in range(self.ahead))
        for there in positions:
            waiting.append(self._write(there))
            yield painted(self.digits, waiting.popleft().result())

    def _write(self, positions: list[int]) -> Future[Scripts]:
        assert self.workers is not None
        return self.workers.submit(written, self.settings, self.spec, positions)

    def _positions(self) -> Iterator[list[int]]:
        rank, world, micro = (self.arguments[k] for k in ("rank", "world_size", "micro_batch"))
        for start in itertools.count(self.consumed, micro * world):
            yield [start + j * world + rank for j in range(micro)]

    def close(self) -> None:
        """Let the workers go."""
        if self.workers is not None:
            self.workers.shutdown(wait=True, cancel_futures=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="a.b=c")
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--digits", type=int, default=2)
    parser.add_argument("--workers", type=int, default=0)
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
        open_stream=partial(Drawn, settings=settings, workers=given.workers),
        picture_clip=lambda data, device: painted(
            all_digits(given.train, device), written(settings, data.clip, list(range(10**6, 10**6 + 8)))
        ),
        begin=begin,
    )
    if summary.interrupted:
        sys.exit(f"stopped after {summary.steps} steps, before its end; the same command goes on")
    cost = {"seconds": time.monotonic() - began, "core_seconds": time.process_time() - used}
    print(json.dumps({"steps": summary.steps, "clips": summary.clips, **cost, **summary.metrics}))


if __name__ == "__main__":
    main()
