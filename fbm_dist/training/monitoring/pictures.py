"""Pictures of a run: what the objective shows of the same few clips, as PNG files in the run folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fbm_dist.clip import Clip
from fbm_dist.objectives.objective import Objective

FOLDER = "pictures"
NUM_CLIPS = 8


def save_pictures(objective: Objective, clip: Clip, folder: Path, step: int) -> list[Path]:
    """Write `objective.visualize(clip)` as `folder`/pictures/NAME-STEP.png; several images of a name stand below each other.

    Works in eval mode without gradients, and leaves the mode and the random generators as they were.
    """
    training = objective.training
    devices = [clip.video.device] if clip.video.is_cuda else []
    objective.eval()
    try:
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            pictures = objective.visualize(clip)
    finally:
        objective.train(training)
    paths = []
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    for name, images in pictures.items():
        path = folder / FOLDER / f"{name}-{step:08d}.png"
        partial = path.with_suffix(".partial")  # tracking sends every *.png it finds: none may be half written
        Image.fromarray(np.concatenate(list(images.cpu().numpy()), axis=0)).save(partial, format="PNG")
        paths.append(partial.replace(path))
    return paths


def latest_pictures(folder: Path) -> tuple[Path, ...]:
    """The pictures of the last step that has some."""
    paths = sorted((folder / FOLDER).glob("*.png"), key=_step)
    return tuple(sorted(path for path in paths if _step(path) == _step(paths[-1])))


def _step(path: Path) -> str:
    return path.stem.rpartition("-")[2]
