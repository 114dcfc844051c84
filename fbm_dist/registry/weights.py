"""encoder.safetensors into a module: its header is compared with what config.json describes before anything of that size is made."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

HEADER = 100_000_000  # bytes; what safetensors itself allows
NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def read_weights(path: Path, build: Callable[[], nn.Module], described: str) -> dict[str, torch.Tensor]:
    """The tensors of `path`, once names, types and shapes are known to be those of the module that `build` makes.

    The module is looked at on the meta device, where it takes no memory: a config that describes a giant is refused by its file.

    Args:
        described: what says how the module is built, for messages.
    Raises:
        ValueError: no safetensors file, or one of other tensors; in one line.
    """
    found = _header(path)
    with torch.device("meta"):
        wanted = {name: [NAMES.get(t.dtype), list(t.shape)] for name, t in build().state_dict().items()}
    differing = sorted({name for name in {*wanted, *found} if wanted.get(name) != found.get(name)})
    if differing:
        name = differing[0]
        raise ValueError(
            f"{path}: does not fit {described}: {name[:80]!r} is {_told(found.get(name))} in the file and "
            f"{_told(wanted.get(name))} by {described} ({len(differing)} of {len(wanted)} tensors differ)"
        )
    try:
        return load_file(path)
    except (SafetensorError, RuntimeError, ValueError, OSError) as error:
        raise ValueError(f"{path}: does not fit {described}: {_line(error)}") from None


def _header(path: Path) -> dict[str, Any]:
    """[type, shape] by name."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if not 2 <= size <= min(HEADER, path.stat().st_size - 8):
                raise ValueError(f"its header claims {size} bytes of a file of {path.stat().st_size}")
            header = json.loads(file.read(size))
        return {name: [said["dtype"], said["shape"]] for name, said in header.items() if name != "__metadata__"}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path}: not a safetensors file: {_line(error)}; nothing of it was loaded, and a pickle never is"
        ) from None


def _told(what: Any) -> str:
    return "missing" if what is None else f"{what[0]} {what[1]}"


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
