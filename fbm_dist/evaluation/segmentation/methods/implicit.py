"""The implicit foreground of an objective that is a Segmenter: what it draws of a clip's first frame without being given a mask."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from data_tools.frames import resized
from data_tools.segmenter import checked, normalised
from fbm_dist import registry
from fbm_dist.config import load
from fbm_dist.data.decoding.region import Region, region
from fbm_dist.data.order.draw import Draw
from fbm_dist.evaluation.segmentation.folders.sequence import Sequence
from fbm_dist.evaluation.segmentation.methods.method import Method, Score
from fbm_dist.objectives.family import Family
from fbm_dist.objectives.objective import Objective, Segmenter
from fbm_dist.registry.folder import weights_digest
from fbm_dist.schema import ClipSpec, InitFrom, Run
from fbm_dist.training.distributed import World
from fbm_dist.training.initialization import initialize

CONFIG, FINISHED = "config.yaml", "finished.json"
WHOLE = "give a run's folder, with its checkpoints: an encoder alone has no decoders, which draw the foreground"
CENTRE = Draw(window=0.5, reverse=0.0, mirror=0.0)


class ImplicitForeground(Method):
    """A whole objective, of a run or with random weights; each annotated frame is the first of a clip as its family wants it.

    Frames so near to the end of a film that a clip does not fit are the first of a clip that runs backwards; in a film shorter than a
    clip the frames go to its end and back.
    """

    def __init__(
        self, run: Run, objective: Objective, batch: int, row: str, uri: str, weights: str, device: torch.device
    ) -> None:
        """`weights`: what tells them from others: a digest, or the seed that drew them."""
        super().__init__(row, uri)
        self.architecture = run.objective.model_dump_json()
        assert isinstance(objective, Segmenter), "segmenter_of says so"
        self.segmenter: Segmenter = objective
        self.objective: Objective = objective
        objective.to(device).eval()
        self.clip = family_of(run).segmented(run.data.clip)
        self.batch, self.weights, self._device = batch, weights, device

    def settings(self) -> dict[str, Any]:
        """Weights, and how clips are cut."""
        return {"weights": self.weights, "clip": self.clip.model_dump(mode="json")}

    @torch.inference_mode()
    def scores(self, sequence: Sequence) -> Iterator[Score]:
        """Of each annotated frame, from the frames after it; pixels outside the clip's square have 0.

        Raises:
            ValueError: a frame cannot be read, or what comes out is no score.
        """
        height, width = sequence.size(0)
        part = region(self.clip, height, width, CENTRE)
        read: dict[int, UInt8[np.ndarray, "s s 3"]] = {}
        annotated = sequence.annotated
        for start in range(0, len(annotated), self.batch):
            windows = [
                window(index, self.clip, len(sequence.frames)) for index in annotated[start : start + self.batch]
            ]
            needed = {index for indices in windows for index in indices}
            read = {index: read[index] if index in read else self._square(sequence, index, part) for index in needed}
            videos = [normalised(np.stack([read[index] for index in indices])) for indices in windows]
            video = torch.stack(videos).transpose(1, 2).to(self._device)
            found = self.segmenter.segment(video).float().cpu().numpy()
            for score in checked(found, len(windows), self.row):
                yield score[0] if part is None else _placed(score[0], part, height, width)

    def _square(self, sequence: Sequence, index: int, part: Region | None) -> UInt8[np.ndarray, "s s 3"]:
        frame = sequence.frame(index)
        if part is not None:
            frame = frame[part.y0 : part.y1, part.x0 : part.x1]
        return resized(frame, (self.clip.size, self.clip.size))


def of_run(folder: Path, batch: int, world: World) -> ImplicitForeground:
    """The objective of a run with the weights of its newest checkpoint. Every rank calls it.

    Raises:
        ValueError: there is no whole objective in the folder, or it is no Segmenter.
    """
    with world.agreed():
        run, objective = segmenter_of(folder)
    loaded = initialize(objective, InitFrom(source=str(folder)), world)
    if len(loaded.names) < loaded.num_tensors:
        raise ValueError(
            f"implicit {folder}: {loaded.file} has {len(loaded.names)} of the {loaded.num_tensors} tensors of "
            f"{run.objective.family}; {WHOLE}"
        )
    row = f"{family_of(run).foreground} {name_of(run, folder)}"
    method = ImplicitForeground(run, objective, batch, row, str(folder), loaded.sha256, world.device)
    method.sha256 = loaded.sha256
    return method


def version_of(folder: Path, objective: Objective, tracking_uri: str | None) -> str | None:
    """models:/NAME/VERSION that the run was registered as; None: it was not, or not with these weights, or in another registry.

    Args:
        objective: with the weights that are measured. A run that kept an earlier step's encoder, or was trained on, has others.
    """
    try:
        told = json.loads((folder / FINISHED).read_text(encoding="utf-8"))["summary"]["model_uri"]
        if not told or registry.describe(told, tracking_uri=tracking_uri).sha256 != registry.describe(folder).sha256:
            return None
        same = weights_digest(registry.load_encoder(folder)) == weights_digest(objective.encoder())
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
    ):  # unfinished, moved, or deleted since: the masks are measured all the same
        return None
    return str(told) if same else None


def with_random_weights(folder: Path, seed: int, batch: int, world: World) -> ImplicitForeground:
    """The architecture of a run with the weights that `seed` draws."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        run, objective = segmenter_of(folder)
    row = f"{family_of(run).foreground} {name_of(run, folder)}, random weights"
    key = f"{run.objective.model_dump_json()} {seed}"
    return ImplicitForeground(run, objective, batch, row, "random", key, world.device)


def family_of(run: Run) -> Family:
    """The config of the run's family; a classifier's is none, and it is no Segmenter."""
    assert isinstance(run.objective, Family), "segmenter_of says so"
    return run.objective


def name_of(run: Run, folder: Path) -> str:
    """What people call the run."""
    return run.run.name or folder.resolve().name


def segmenter_of(folder: Path) -> tuple[Run, Objective]:
    """The config of a run, and its objective with fresh weights.

    Raises:
        ValueError: the folder is none of a run, or its objective is no Segmenter.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise ValueError(f"implicit {folder}: there is no {CONFIG}; {WHOLE}")
    run = load(Run, path)
    objective = run.objective.build()
    if not isinstance(objective, Segmenter):
        raise ValueError(
            f"implicit {folder}: its objective, {run.objective.family}, tells no foreground from background; "
            "give a run of fbm or motion_mask"
        )
    return run, objective


def window(index: int, clip: ClipSpec, length: int) -> list[int]:
    """The frames of the clip whose first is `index`, of a film of `length` frames.

    Args:
        clip: a plain ClipSpec.
    """
    offsets = np.array(clip.offsets) if clip.offsets else np.arange(clip.frames) * clip.stride
    for direction in (1, -1):
        found = index + direction * offsets
        if 0 <= found[-1] < length:
            return [int(place) for place in found]
    turned = (index + offsets) % max(1, 2 * (length - 1))  # a film shorter than the clip: to its end and back
    return [int(place) for place in np.minimum(turned, 2 * (length - 1) - turned).clip(0)]


def _placed(score: Score, part: Region, height: int, width: int) -> Float32[np.ndarray, "rows columns"]:
    """A score of a part of the frame, in the frame."""
    scale = score.shape[0] / (part.y1 - part.y0)
    out = np.zeros((max(1, round(height * scale)), max(1, round(width * scale))), np.float32)
    top, left = min(round(part.y0 * scale), out.shape[0] - score.shape[0]), round(part.x0 * scale)
    left = min(left, out.shape[1] - score.shape[1])
    out[top : top + score.shape[0], left : left + score.shape[1]] = score
    return out
