"""A pulled encoder without the rest: `load(folder)` imports torch and nothing else; no MLflow, no training code, no pickle.

`python -m fbm_dist.registry pull models:/NAME@ALIAS to=DIR` makes such a folder.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.export.passes import move_to_device_pass

from fbm_dist.inference.archive import open_program
from fbm_dist.inference.sums import PROGRAM, read_checked

__all__ = ["load"]


def load(folder: str | Path, *, device: torch.device | str = "cpu", exported: bool = True) -> nn.Module:
    """The encoder of a pulled folder, for inference.

    Args:
        exported: True: the program encoder.pt2, which needs torch alone; it has one mode, that of inference.
            False: rebuilt from config.json and encoder.safetensors as the module that was trained, e.g. to fine-tune it; this needs
            safetensors, numpy, pydantic, jaxtyping, ruamel.yaml, universal-pathlib and pillow besides, and reads no program.
    Returns:
        `encoder(video)`: float32 (b, 3, t, h, w) in [-1, 1], any b -> named float32 (b, d); t, h, w and d say README.md and config.json.
    Raises:
        ValueError: not such a folder, a file that is not the one that was pulled, a program that does more than compute; in one line.
    """
    folder = Path(folder)
    if exported:
        content = read_checked(folder, PROGRAM)
        program = open_program(content, str(folder / PROGRAM))
        # also the graph's own tensors, e.g. an LSTM's first state, which `to` would leave on the CPU
        return move_to_device_pass(program, torch.device(device)).module() if str(device) != "cpu" else program.module()
    from fbm_dist.inference.sums import CONFIG, WEIGHTS, check
    from fbm_dist.registry.folder import read_encoder

    check(folder, only=(CONFIG, WEIGHTS))
    return read_encoder(folder, device=device)
