"""An encoder as ONNX, held against the encoder in ONNX Runtime; needs the extra `onnx`."""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from fbm_dist.registry.exports.agreement import Call
from fbm_dist.registry.folder import Description

NEEDED = ("onnx", "onnxscript", "onnxruntime")
LARGEST = 2**31 - 1  # bytes of a protobuf
CHATTY = ("torch.onnx", "onnxscript", "onnx_ir")


def check_installed() -> None:
    """The extra `onnx` is there.

    Raises:
        ValueError: saying what to install.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f"ONNX needs {', '.join(missing)}: pip install 'fbm-dist[onnx]'; or export to FILE.pt2")


def onnx_of(program: ExportedProgram, description: Description, about: Mapping[str, Any]) -> bytes:
    """The bytes of an .onnx file: input `video` (batch, 3, t, h, w), an output for every feature group.

    Raises:
        ValueError: the extra is missing, an operator has no counterpart, or the weights are too large for one file.
    """
    check_installed()
    if 4 * description.parameters > LARGEST:
        raise ValueError(f"{description.parameters:,} parameters do not fit one ONNX file (2 GB); export to FILE.pt2")
    levels = {name: logging.getLogger(name).level for name in CHATTY}
    try:
        for name in CHATTY:
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exported = torch.onnx.export(
                program, input_names=["video"], output_names=list(description.features), dynamo=True, verbose=False
            )
    except Exception as error:  # of any kind: every operator has a translation of its own
        line = " ".join(str(error).split())[:200]
        raise ValueError(
            f"the {description.objective.family} encoder has no ONNX form: {line}; export to FILE.pt2"
        ) from None
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
    assert exported is not None
    model = exported.model_proto
    for key, value in about.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, str(value)
    return bytes(model.SerializeToString())


def runner(content: bytes) -> Call:
    """What ONNX Runtime makes of the file, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def call(video: Tensor) -> dict[str, Tensor]:
        found = session.run(names, {"video": video.numpy()})
        return {name: torch.from_numpy(value) for name, value in zip(names, found, strict=True)}

    return call
