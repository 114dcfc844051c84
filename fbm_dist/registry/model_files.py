"""An encoder folder as an MLflow model: pyfunc by models-from-code, signature, input example, requirements, the code that reads it."""

from __future__ import annotations

import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fbm_dist.registry.client import calling
from fbm_dist.registry.folder import CONFIG, WEIGHTS, Description, read_description

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

SERVING = Path(__file__).with_name("serving.py")
# What serving.py and the modules that it imports need.
REQUIREMENTS = ("torch", "numpy", "safetensors", "pydantic", "jaxtyping", "ruamel.yaml", "universal-pathlib", "pillow")
PACKAGES = ("fbm_dist", "data_tools")


def write_model(encoder_folder: Path, output: Path) -> Path:
    """Write the MLflow model folder `output` from an encoder folder, of any name: of its files only the two that are the encoder.

    Raises:
        ValueError: MLflow or the encoder refuses.
    """
    description = read_description(encoder_folder)
    root = SERVING.parent.parent.parent
    staged = output.parent / "encoder"  # what MLflow calls the artifact, and where `fetched` looks for it
    staged.mkdir(parents=True)
    for name in (CONFIG, WEIGHTS):
        shutil.copyfile(encoder_folder / name, staged / name)
    path = list(sys.path)  # MLflow puts `code` of the folder that it writes in front, and this folder will be gone
    with calling(f"pack the encoder {encoder_folder}"):
        from mlflow import pyfunc

        pyfunc.save_model(
            path=str(output),
            python_model=str(SERVING),
            artifacts={"encoder": str(staged)},
            signature=_signature(description),
            input_example=example(description),
            pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in REQUIREMENTS],
            code_paths=[str(root / package) for package in PACKAGES],
            metadata={"family": description.objective.family, "sha256": description.sha256},
        )
    sys.path[:] = path
    for cache in list(output.rglob("__pycache__")):
        shutil.rmtree(cache)
    return output


def example(description: Description) -> np.ndarray:
    """One clip, float32 (1, 3, t, h, w) of -1 and 1: a bright square that moves to the right over a dark ground."""
    frames, size = description.clip.frames, description.clip.size
    video = np.full((1, 3, frames, size, size), -1, dtype=np.float32)
    side = size // 4
    for t in range(frames):
        left = (size - side) * t // max(frames - 1, 1)
        video[:, :, t, size // 2 - side // 2 : size // 2 + side // 2, left : left + side] = 1
    return video


def _signature(description: Description) -> ModelSignature:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    clip = description.clip
    video = TensorSpec(np.dtype(np.float32), (-1, 3, clip.frames, clip.size, clip.size))
    features: list[ColSpec | TensorSpec] = [
        TensorSpec(np.dtype(np.float32), (-1, length), name) for name, length in description.features.items()
    ]
    return ModelSignature(inputs=Schema([video]), outputs=Schema(features))
