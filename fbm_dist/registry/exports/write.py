"""Export an encoder to FILE.pt2 or FILE.onnx: written whole, or not at all where it does not give what the encoder gives."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from data_tools.places import write_atomic
from fbm_dist.inference.archive import open_program
from fbm_dist.objectives.objective import Encoder
from fbm_dist.registry.exports import onnx, program
from fbm_dist.registry.exports.agreement import BATCHES, check_agrees, random_clips
from fbm_dist.registry.folder import Description

KINDS = (".pt2", ".onnx")


def export_encoder(encoder: Encoder, description: Description, file: Path, *, source: str = "") -> tuple[str, float]:
    """Write `file`, by the kind that its name says; returns its sha256 and how far its features are off.

    Args:
        encoder: on the CPU, in eval mode.
        source: where it comes from, e.g. models:/NAME/VERSION.
    Raises:
        ValueError: another kind of name, an operator without counterpart, features that are not the encoder's; no file is left.
    """
    check_kind(file)
    if file.suffix == ".onnx":
        onnx.check_installed()
    content, far = exported(encoder, description, file.name, source)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, content)
    return hashlib.sha256(content).hexdigest(), far


def check_kind(file: Path) -> None:
    """The file's name says a kind that there is."""
    if file.suffix not in KINDS:
        raise ValueError(f"{file}: an exported encoder's file ends in {' or '.join(KINDS)}")


def exported(encoder: Encoder, description: Description, name: str, source: str = "") -> tuple[bytes, float]:
    """The bytes of the file, read back and compared, and how far its features are off (a share of the largest)."""
    about = _about(description, source)
    graph = program.traced(encoder, description)
    if name.endswith(".onnx"):
        content = onnx.onnx_of(graph, description, about)
        call = onnx.runner(content)
    else:
        content = program.pt2_of(graph, about, name)
        call = open_program(content, name).module()
    clips = [random_clips(description, batch) for batch in BATCHES]
    return content, check_agrees(call, encoder, clips, name)


def _about(description: Description, source: str) -> dict[str, Any]:
    """What the file says of itself."""
    objective = description.objective
    return {
        "source": source,
        "family": objective.family,
        "weights_sha256": description.sha256,
        "input": f"video: float32 (batch, 3, {objective.frames}, {objective.size}, {objective.size}) in [-1, 1], RGB",
        "features": ", ".join(f"{name} {length}" for name, length in description.features.items()),
    }
