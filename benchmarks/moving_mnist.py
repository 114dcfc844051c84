"""DrNet on Moving MNIST: are content and pose swapped cleanly, do rollouts stay crisp? Against the truth, which this data set knows.

    python benchmarks/moving_mnist.py --drnet RUN [--prediction RUN ...] --train MNIST.npz --test MNIST_TEST.npz [--pictures DIR]

    swap      content of one film, pose of another, for pairs of films with held-out digits. True is the first film's digits at the second's
              places. `error`: mean squared error in [0, 1] of the swapped frame, beside those of who gives the content's frame, the pose's
              frame, or black. `digits`: share of digits that 3 nearest neighbours (cosine, 10,000 training digits) name rightly in the
              colour and at the place where they should be, beside the same for the true frame.
    probe     linear (ridge) probes of a frame's content and pose, fitted on half of other films, tested on the rest: share of digits
              named rightly (chance 0.1), and share of the variance of their places explained (R^2; a code that knows nothing: 0).
    rollout   PSNR against the truth, and sharpness: mean gradient energy, divided by that of the true frames, at several distances into
              the future, beside a copy of the last frame seen. With one sharpness for the frame seen, as the decoder makes it.

Frames are drawn here, not decoded. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))

from data_tools.synthetic.config import MovingMnist
from data_tools.synthetic.digits import DIGIT, Cast, cast, enlarged, paint, path, read
from fbm_dist.config import load
from fbm_dist.layers.pictures import grid, titled, to_uint8
from fbm_dist.objectives.drnet.network import DrNetNetwork
from fbm_dist.objectives.drnet.objective import DrNet
from fbm_dist.objectives.drnet.prediction import DrNetPrediction
from fbm_dist.schema import InitFrom, Run
from fbm_dist.training.distributed import World
from fbm_dist.training.initialization import initialize

KNOWN = 10_000  # training digits that neighbours are sought among
DISTANCES = (1, 5, 10, 25, 50, 100, 250, 500)  # frames into the future
SHOWN = (1, 2, 5, 10, 25, 50, 100, 500)


def objective_of(folder: Path) -> Any:
    """The objective of a run with the weights of its newest checkpoint, in eval mode."""
    run = load(Run, folder / "config.yaml")
    objective = run.objective.build()
    loaded = initialize(objective, InitFrom(source=str(folder)), World(0, 0, 1, 1, torch.device("cpu")))
    assert len(loaded.names) == loaded.num_tensors, loaded.text
    return objective.eval()


def films(settings: MovingMnist, count: int, frames: int) -> tuple[Tensor, list[Cast], np.ndarray]:
    """(n, 3, t, 64, 64) in [-1, 1] of held-out digits, who plays, and where the digits are: (n, t, digits, 2)."""
    casts = [cast(settings, number, "test") for number in range(count)]
    places = np.stack([path(c.start, c.speed, frames) for c in casts])
    video = np.stack(
        [[paint(drawn(settings, c), p, c.order) for p in own] for c, own in zip(casts, places, strict=True)]
    )
    return torch.from_numpy(video).permute(0, 4, 1, 2, 3).float() / 127.5 - 1, casts, places


def drawn(settings: MovingMnist, who: Cast) -> np.ndarray:
    """The film's digits at the size in which they move."""
    assert settings.test is not None
    return np.stack([enlarged(image) for image in read(settings.test)[0][who.number]])


class Neighbours:
    """Names a digit by its 3 nearest neighbours among training digits."""

    def __init__(self, file: Path) -> None:
        x, y = read(file)
        step = max(1, len(x) // KNOWN)  # the file may be sorted by class
        x, self.y = x[::step], y[::step]
        self.known = self._unit(np.stack([enlarged(image) for image in x]))

    def name(self, digits: np.ndarray) -> np.ndarray:
        """Classes of (n, 32, 32) in [0, 255]."""
        nearest = np.argsort(-self._unit(digits) @ self.known.T, axis=1)[:, :3]
        return np.array([np.bincount(votes, minlength=10).argmax() for votes in self.y[nearest]])

    @staticmethod
    def _unit(digits: np.ndarray) -> np.ndarray:
        rows = digits.reshape(len(digits), -1).astype(np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-6)


def swap(
    objective: DrNet, settings: MovingMnist, pairs: int, neighbours: Neighbours, folder: Path | None
) -> dict[str, Any]:
    """Film i gives the content, film i + 1 the pose, by their last frames."""
    video, casts, places = films(settings, pairs + 1, 10)
    last = video[:, :, -1]
    where = [p[-1] for p in places]
    truth = torch.from_numpy(
        np.stack([paint(drawn(settings, casts[i]), where[i + 1], casts[i + 1].order) for i in range(pairs)])
    )
    true = truth.permute(0, 3, 1, 2).float() / 255
    model: DrNetNetwork = objective.model
    with torch.no_grad():
        made = model.decode(model.encoder.still(video[:-1, :, 0]), model.encoder.moving(last[1:]))
        poses = model.encoder.moving(last)
    others = {"content": (last[:-1] + 1) / 2, "pose": (last[1:] + 1) / 2, "black": torch.zeros_like(true)}
    assert settings.test is not None
    classes = [read(settings.test)[1][casts[i].number] for i in range(pairs)]
    if folder:
        show = {
            "content": to_uint8(last[:-1]),
            "pose": to_uint8(last[1:]),
            "made": to_uint8(made * 2 - 1),
            "true": truth,
        }
        picture = titled(grid([[tile[:12] for tile in show.values()]]), list(show))
        Image.fromarray(np.concatenate(list(picture.numpy()))).save(folder / "swap-truth.png")
    return {
        "error": {"made": F.mse_loss(made, true).item()} | {k: F.mse_loss(v, true).item() for k, v in others.items()},
        "digits": {
            name: right(image, where[1:], classes, neighbours) for name, image in (("made", made), ("true", true))
        },
        "pose_spread": poses.std(dim=0).mean().item(),
    }


def probe(objective: DrNet, settings: MovingMnist, count: int) -> dict[str, dict[str, float]]:
    """What content and pose of one frame say of digits and of places; held-out digits."""
    video, casts, places = films(settings, count, 1)
    assert settings.test is not None
    classes = np.stack([read(settings.test)[1][c.number] for c in casts])
    wanted = np.concatenate([np.eye(10)[classes].reshape(count, -1), places[:, 0].reshape(count, -1)], axis=1)
    with torch.no_grad():
        frames = video[:, :, 0].split(100)
        codes = {
            "content": torch.cat([objective.model.encoder.still(f).content for f in frames]),
            "pose": torch.cat([objective.model.encoder.moving(f) for f in frames]),
        }
    found, half = {}, count // 2
    for name, code in codes.items():
        x = code.double().numpy()
        x = (x - x[:half].mean(axis=0)) / (x[:half].std(axis=0) + 1e-6)
        x = np.concatenate([x, np.ones((count, 1))], axis=1)
        weights = np.linalg.solve(x[:half].T @ x[:half] + np.eye(x.shape[1]), x[:half].T @ wanted[:half])
        said, true = x[half:] @ weights, wanted[half:]
        digits = said[:, : 10 * settings.digits].reshape(count - half, settings.digits, 10).argmax(axis=2)
        where, there = said[:, 10 * settings.digits :], true[:, 10 * settings.digits :]
        found[name] = {
            "digits": float((digits == classes[half:]).mean()),
            "places": float(1 - ((where - there) ** 2).mean() / there.var(axis=0).mean()),
        }
    return found


def right(frames: Tensor, where: list[np.ndarray], classes: list[np.ndarray], neighbours: Neighbours) -> float:
    """The share of digits that are named rightly in their colour and at their place."""
    cut, wanted = [], []
    for frame, places, own in zip((frames * 255).numpy(), where, classes, strict=True):
        for i, (row, column) in enumerate(places):
            cut.append(frame[i, row : row + DIGIT, column : column + DIGIT])
            wanted.append(own[i])
    return float((neighbours.name(np.stack(cut)) == np.array(wanted)).mean())


def rollout(
    objective: DrNetPrediction, settings: MovingMnist, count: int, past: int, folder: Path | None, name: str
) -> dict[str, Any]:
    """`count` films of held-out digits, `past` frames seen."""
    video, _, _ = films(settings, count, past + max(DISTANCES))
    made = objective.generate(video[:, :, :past], past, max(DISTANCES))
    seen, future = video[:, :, past - 1], video[:, :, past:]
    with torch.no_grad():
        model = objective.model
        rebuilt = model.decode(model.encoder.still(seen), model.encoder.moving(seen)) * 2 - 1
    real = energy(video.transpose(1, 2).flatten(0, 1))
    rows = {}
    for t in DISTANCES:
        image, true = made[:, :, t - 1], future[:, :, t - 1]
        rows[t] = {"psnr": psnr(image, true), "copy": psnr(seen, true), "sharpness": energy(image) / real}
    if folder:
        strip = [[to_uint8(f[:6, :, t - 1]) for t in SHOWN] for f in (future, made)]
        picture = titled(grid(strip), [f"+{t}" for t in SHOWN])
        Image.fromarray(np.concatenate(list(picture.numpy()))).save(folder / f"rollout-{name}.png")
    return {"rebuilt": {"psnr": psnr(rebuilt, seen), "sharpness": energy(rebuilt) / real}, "after": rows}


def psnr(image: Tensor, true: Tensor) -> float:
    """Mean over frames, of values in [0, 1]."""
    error = ((image - true) / 2).square().mean(dim=(1, 2, 3))
    return float((-10 * error.clamp(min=1e-10).log10()).mean())


def energy(frames: Tensor) -> float:
    """Mean squared difference of neighbouring pixels, down and across."""
    down, across = frames.diff(dim=2), frames.diff(dim=3)
    return float(down.square().mean() + across.square().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drnet", type=Path, nargs="*", default=[])
    parser.add_argument("--prediction", type=Path, nargs="*", default=[])
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--digits", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--probed", type=int, default=2000)
    parser.add_argument("--films", type=int, default=16)
    parser.add_argument("--pictures", type=Path)
    given = parser.parse_args()
    if given.pictures:
        given.pictures.mkdir(parents=True, exist_ok=True)
    settings = MovingMnist(
        kind="moving_mnist", output=Path("unused"), train=given.train, test=given.test, seed=1, digits=given.digits
    )
    found: dict[str, Any] = {}
    neighbours = Neighbours(given.train)
    for run in given.drnet:
        objective = objective_of(run)
        found[run.name] = swap(objective, settings, given.pairs, neighbours, given.pictures)
        found[run.name]["probe"] = probe(objective, settings, given.probed)
    for run in given.prediction:
        objective = objective_of(run)
        found[run.name] = rollout(objective, settings, given.films, objective.config.n_past, given.pictures, run.name)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
