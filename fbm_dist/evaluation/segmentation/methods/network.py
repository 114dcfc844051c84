"""A segmenter from a file: a network that says from one frame alone what is foreground (Pathak et al. 2017, section 5.2).

The file is a program of torch.export (`torch.export.save(torch.export.export(network, (frame,)), "NAME.pt2")`): it holds code and
weights and needs no class of ours. Its contract:

    input   float32 (1, 3, s, s), RGB in [-1, 1]: the whole frame, squashed to a square of fixed s
    output  (1, 1, h, w), scores in [0, 1] that cover the whole frame, in any resolution; after the sigmoid
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor
from torch.export import ExportedProgram
from torch.export.passes import move_to_device_pass

from data_tools.frames import resized
from data_tools.places import sha256_of
from fbm_dist.evaluation.segmentation.folders.sequence import Sequence
from fbm_dist.evaluation.segmentation.methods.method import Method, Score, checked

CONTRACT = "export a network that takes one frame (1, 3, s, s) of fixed size: torch.export.save(torch.export.export(...), FILE.pt2)"


class ExportedNetwork(Method):
    """A program of torch.export, on one device."""

    def __init__(self, path: Path, device: torch.device) -> None:
        """Open the file.

        Raises:
            ValueError: it is not there, is no such program, or takes something else than one square frame.
        """
        super().__init__(f"network {path.stem}", str(path))
        program = _opened(path)
        self.side = _side(program, path)
        self.sha256 = sha256_of(path)
        if device.type != "cpu":  # constants in the program stay where it was exported
            program = move_to_device_pass(program, str(device))
        self._call, self._device = program.module(), device

    def settings(self) -> dict[str, Any]:
        """The file's digest."""
        return {"sha256": self.sha256}

    @torch.inference_mode()
    def scores(self, sequence: Sequence) -> Iterator[Score]:
        """Of each annotated frame by itself.

        Raises:
            ValueError: a frame cannot be read, or what comes out is no score.
        """
        for index in sequence.annotated:
            frame = resized(sequence.frame(index), (self.side, self.side))
            video = normalised(frame[None]).to(self._device)
            found = self._call(video)
            if not isinstance(found, Tensor):
                raise ValueError(f"{self.uri} gives a {type(found).__name__}; it must give one tensor (1, 1, h, w)")
            yield checked(found.float().cpu().numpy(), 1, self.uri)[0, 0]


def normalised(frames: UInt8[np.ndarray, "t h w 3"]) -> Float32[Tensor, "t 3 h w"]:
    """Pixels of 0 ... 255 as the networks take them: in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2))).float() / 127.5 - 1


def _opened(path: Path) -> ExportedProgram:
    if not path.is_file():
        raise ValueError(f"{path}: no such network; {CONTRACT}")
    if path.suffix != ".pt2":
        raise ValueError(f"{path}: a network's file ends in .pt2; {CONTRACT}")
    try:
        return torch.export.load(str(path))
    except Exception as error:  # whatever a damaged archive makes of it
        raise ValueError(f"{path} is no exported program ({' '.join(str(error).split())[:200]}); {CONTRACT}") from None


def _side(program: ExportedProgram, path: Path) -> int:
    """The side of the square that the program takes."""
    inputs = set(program.graph_signature.user_inputs)
    shapes = [
        tuple(node.meta["val"].shape) if isinstance(node.meta.get("val"), Tensor) else None
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in inputs
    ]
    shape = shapes[0] if len(shapes) == 1 else None
    if shape is None or not all(isinstance(side, int) for side in shape):
        raise ValueError(f"{path} takes {len(inputs)} inputs, or one whose size is open; {CONTRACT}")
    if len(shape) != 4 or shape[:2] != (1, 3) or shape[2] != shape[3]:
        raise ValueError(f"{path} takes {shape}; {CONTRACT}")
    return int(shape[2])
