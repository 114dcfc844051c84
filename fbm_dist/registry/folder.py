"""An encoder on disk: encoder.safetensors + config.json, with a checksum; read with torch alone, no MLflow and no pickle."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, TypeAdapter, ValidationError
from safetensors.torch import save_file
from torch import nn

from data_tools.config import Config
from fbm_dist.objectives.families import Pretraining
from fbm_dist.objectives.family import Family
from fbm_dist.objectives.objective import Encoder
from fbm_dist.registry.weights import read_weights
from fbm_dist.schema import ClipSpec

WEIGHTS = "encoder.safetensors"
CONFIG = "config.json"
LARGEST_CONFIG = 16 << 20  # bytes
FeatureName = Annotated[str, Field(pattern="^[A-Za-z][A-Za-z0-9_]{0,63}$")]  # they name columns and files elsewhere


class Description(Config):
    """`config.json`: everything that is needed to build the encoder, feed it, and trust it."""

    format: Literal[1] = 1
    objective: Pretraining  # the pretraining family and its size
    clip: ClipSpec  # how pretraining cut its clips: frames, size ...
    value_range: tuple[float, float] = (-1.0, 1.0)  # of the input video, RGB
    features: dict[FeatureName, int]  # length of each named feature vector
    sha256: str = Field(pattern="^[0-9a-f]{64}$")  # of encoder.safetensors
    parameters: int
    info: dict[str, Any] = {}  # run, data digest, metrics ...


def save_encoder(encoder: Encoder, config: Family, clip: ClipSpec, folder: str | Path, info: Mapping[str, Any]) -> None:
    """Write `encoder` to `folder`, whole or not at all; an encoder that is already there is replaced.

    Args:
        encoder: on any device, in any mode; its mode is left as it was.
        config: the pretraining family's config, which `build_encoder()` needs.
        clip: the ClipSpec that it was pretrained with.
        folder: e.g. RUN/encoder.
        info: whatever explains where it comes from, as JSON: run, data digest, metrics.
    Raises:
        ValueError: `info` is not JSON, or the encoder's weights or features are not finite.
    """
    folder = Path(folder)
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    temporary.mkdir(parents=True)
    try:
        state = {name: value.detach().cpu().contiguous().clone() for name, value in encoder.state_dict().items()}
        broken = [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
        if broken:
            raise ValueError(
                f"encoder not saved: {broken[0]!r} has NaN or infinite values; resume from a checkpoint before that"
            )
        save_file(state, temporary / WEIGHTS, metadata={"format": "pt"})
        description = Description(
            objective=TypeAdapter(Pretraining).validate_json(config.model_dump_json()),
            clip=clip,
            features=_feature_lengths(encoder, config),
            sha256=sha256(temporary / WEIGHTS),
            parameters=sum(parameter.numel() for parameter in encoder.parameters()),
            info=json.loads(json.dumps(dict(info), allow_nan=False)),
        )
        (temporary / CONFIG).write_text(description.model_dump_json(indent=2) + "\n", encoding="utf-8")
        for path in temporary.iterdir():
            _sync(path)
        _swap(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_description(folder: str | Path) -> Description:
    """`config.json` of an encoder folder, or of a run folder (RUN/encoder).

    Raises:
        ValueError: no encoder there, or one that this version cannot read.
    """
    return _read(locate(folder))


def read_encoder(folder: str | Path, *, device: torch.device | str = "cpu") -> Encoder:
    """The encoder of an encoder folder or run folder, in eval mode, its weights checked against their checksum.

    Raises:
        ValueError: no encoder there, weights that are not those that were saved, an unknown family.
    """
    folder = locate(folder)
    description = _read(folder)
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise ValueError(f"{weights}: missing; the encoder folder is incomplete, fetch or save it again")
    found = sha256(weights)
    if found != description.sha256:
        raise ValueError(
            f"{weights}: checksum {found[:12]} is not {description.sha256[:12]} of {CONFIG}; "
            "the file was changed or cut short, fetch or save it again"
        )
    state = read_weights(weights, description.objective.build_encoder, CONFIG)
    encoder = fresh_encoder(description.objective, seed=0)
    encoder.load_state_dict(state)
    return encoder.to(device).eval()


def fresh_encoder(config: Pretraining, *, seed: int) -> Encoder:
    """The same architecture with the weights that `seed` draws; the process's own random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return config.build_encoder()


def weights_digest(module: nn.Module) -> str:
    """SHA-256 over names, shapes and values of a module's state: equal weights, equal digest, on any device."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def locate(folder: str | Path) -> Path:
    """The encoder folder itself, given it or its run's folder."""
    folder = Path(folder)
    for candidate in (folder, folder / "encoder"):
        if (candidate / CONFIG).is_file():
            return candidate
    why = f"holds no {CONFIG} and no encoder/{CONFIG}" if folder.is_dir() else "is no folder"
    raise ValueError(
        f"no encoder at {folder}: it {why}; give the folder of a finished run, or models:/NAME@ALIAS, models:/NAME/VERSION"
    )


def sha256(path: Path) -> str:
    """Checksum of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(folder: Path) -> Description:
    path = folder / CONFIG
    if path.stat().st_size > LARGEST_CONFIG:
        raise ValueError(f"{path}: {path.stat().st_size} bytes are no config of an encoder; fetch it again")
    try:
        return Description.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{path}: not an encoder that this version can load: {where}: {first['msg']}") from None


@torch.no_grad()
def _feature_lengths(encoder: Encoder, config: Family) -> dict[str, int]:
    """Length of each named feature vector, found by running one grey clip."""
    training, device = encoder.training, next(encoder.parameters()).device
    encoder.eval()  # a forward in train mode would move the BatchNorm statistics
    try:
        features = encoder(torch.zeros(1, 3, config.frames, config.size, config.size, device=device))
    finally:
        encoder.train(training)
    broken = [name for name, value in features.items() if not value.isfinite().all()]
    if broken:
        raise ValueError(f"encoder not saved: its features {broken} of a grey clip are NaN or infinite")
    return {name: value.shape[1] for name, value in features.items()}


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _swap(new: Path, folder: Path) -> None:
    """Put `new` at the place of `folder`. Folders cannot replace each other in one step, so the old one steps aside first."""
    old = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.old")
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
