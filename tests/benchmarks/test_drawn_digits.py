"""Moving MNIST drawn on the run's device: pixel for pixel what data_tools paints, by worker processes or without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.drawn_digits import Drawn, all_digits, painted, written
from data_tools.synthetic.config import MovingMnist, Split
from data_tools.synthetic.digits import cast, enlarged, paint, path, read
from fbm_dist.config import load
from fbm_dist.schema import ClipSpec, Data, Run


@pytest.fixture
def settings(tmp_path: Path) -> MovingMnist:
    file = tmp_path / "mnist.npz"
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (40, 28, 28), np.uint8) * (rng.random((40, 28, 28)) < 0.5)
    np.savez(file, x=pictures.astype(np.uint8), y=np.arange(40) % 10)
    given = {"kind": "moving_mnist", "output": tmp_path, "train": file, "seed": 3, "digits": 3, "split": Split(test=0)}
    return MovingMnist.model_validate(given)


@pytest.mark.parametrize("spec", [ClipSpec(frames=4, within=20, size=64), ClipSpec(frames=6, size=64)])
def test_the_same_pixels_as_data_tools_paints(settings: MovingMnist, spec: ClipSpec) -> None:
    positions = [5, 11, 12, 400]
    scripts = written(settings, spec, positions)
    clip = painted(all_digits(settings.train, torch.device("cpu")), scripts)
    assert clip.video.shape == (4, 3, spec.frames, 64, 64)
    for row, position in enumerate(positions):
        who = cast(settings, position, "train")
        digits = np.stack([enlarged(image) for image in read(settings.train)[0][who.number]])
        places = path(who.start, who.speed, spec.span)
        for t, frame in enumerate(scripts.frames[row]):
            expected = torch.from_numpy(paint(digits, places[frame], who.order)).permute(2, 0, 1).float() / 127.5 - 1
            torch.testing.assert_close(clip.video[row, :, t], expected, rtol=0, atol=0)


def test_workers_change_nothing_and_a_resumed_stream_goes_on(settings: MovingMnist) -> None:
    data = load(Run, Path("configs/pretrain/drnet_cpu.yaml"), ["data.path=drawn", "run.folder=unused"]).data

    def first(count: int, workers: int, consumed: int) -> list[tuple[str, ...]]:
        stream = _open(data, settings, workers, consumed)
        batches = iter(stream)
        found = [next(batches) for _ in range(count)]
        stream.close()
        return [(*clip.key, str(clip.video.double().sum().item())) for clip in found]

    alone = first(4, 0, 0)
    assert alone == first(4, 2, 0)
    assert alone[2:] == first(2, 0, 8)


def _open(data: Data, settings: MovingMnist, workers: int, consumed: int) -> Drawn:
    arguments = {"seed": 0, "global_batch": 4, "micro_batch": 4, "rank": 0, "world_size": 1, "ranks_here": 1}
    return Drawn(data, settings=settings, workers=workers, consumed=consumed, device=torch.device("cpu"), **arguments)
