"""A segmenter: a network, trained elsewhere, that says from one frame alone what is foreground (Pathak et al. 2017, 5.2).

It is a file, or a function of an installed module (`package.module:function`) where torch.export does not do.

The file is a program of torch.export (`torch.export.save(torch.export.export(network, (frame,)), "NAME.pt2")`): it holds code and
weights, and needs no class of ours. `python -m fbm_dist.registry.segmenter RUN NAME.pt2` writes one. Its contract:

    input   float32 (1, 3, s, s), RGB in [-1, 1]: the whole frame, squashed to a square of fixed s
    output  (1, 1, h, w), scores in [0, 1] that cover the whole frame, in any resolution; after the sigmoid

The function takes one frame, uint8 (h, w, 3) RGB, and gives (y, x) such scores as an array. It is known by the bytes of its module's file:
weights that it loads are its own business. Workers import it by name; with Ray it must be installed on all machines.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import io
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor
from torch.export import ExportedProgram

from data_tools.frames import resized
from data_tools.places import Place, is_local, place, read_bytes, write_atomic
from data_tools.schema import Masks, Prepare

CONTRACT = "export a network that takes one frame (1, 3, s, s) of fixed size: torch.export.save(torch.export.export(...), FILE.pt2)"
FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
LENT = "segmenter.pt2"  # in the staging folder, for workers on other machines


def with_segmenter(settings: Prepare) -> Prepare:
    """The settings, whose masks are a network's, with the digest of its file, which is opened to see whether it is one.

    Raises:
        ValueError: it is not there, keeps the contract in no way, or is another file than `masks.network_sha256`.
    """
    masks = settings.masks
    assert masks.network is not None, "the schema says so"
    if FUNCTION.fullmatch(masks.network):
        name, found = masks.network, function_sha256(masks.network)
        function_of(name)
    else:
        there = place(masks.network)
        content = content_of(there)
        side_of(opened(content, str(there)), str(there))
        name, found = str(there.absolute() if is_local(there) else there), hashlib.sha256(content).hexdigest()
    if masks.network_sha256 not in (None, found):
        raise ValueError(
            f"{masks.network}: its sha256 is {found[:12]}..., and masks.network_sha256 is {str(masks.network_sha256)[:12]}...: "
            "another segmenter makes another data set; give the one that was used, or another output folder"
        )
    known = {"network": name, "network_sha256": found}
    return settings.model_copy(update={"masks": masks.model_copy(update=known)})


def lent(settings: Prepare, folder: Place) -> Prepare:
    """The settings, whose masks are a network's, with a copy of its file in `folder`, which all machines of a cluster see."""
    assert settings.masks.network is not None, "the schema says so"
    if FUNCTION.fullmatch(settings.masks.network):
        return settings
    write_atomic(folder / LENT, read_bytes(place(settings.masks.network)), durable=False)
    return settings.model_copy(update={"masks": settings.masks.model_copy(update={"network": str(folder / LENT)})})


def network_masks(
    frames: Sequence[UInt8[np.ndarray, "h w 3"]], masks: Masks, beat: Callable[[int], None] = lambda _: None
) -> list[Float32[np.ndarray, "y x"]]:
    """Soft foreground scores in [0, 1] of each frame by itself, in the segmenter's own resolution.

    Args:
        masks: as `with_segmenter` gives them.
        beat: told of each frame.
    Raises:
        OSError: the file is not within reach of this machine.
        ValueError: it is another file by now, or gives what is no score.
    """
    assert masks.network is not None, "with_segmenter says so"
    assert masks.network_sha256 is not None, "with_segmenter says so"
    segment = _loaded(masks.network, masks.network_sha256)
    found = []
    for frame in frames:
        found.append(segment(frame))
        beat(0)
    return found


def score_of(
    call: Callable[[Tensor], Tensor], square: UInt8[np.ndarray, "s s 3"], name: str, device: torch.device | None = None
) -> Float32[np.ndarray, "y x"]:
    """What a program gives for one square frame.

    Raises:
        ValueError: it is no score; the text begins with `name`.
    """
    with torch.inference_mode():
        found = call(normalised(square[None]).to(device))
    if not isinstance(found, Tensor):
        raise ValueError(f"{name} gives a {type(found).__name__}; it must give one tensor (1, 1, h, w)")
    return checked(found.float().cpu().numpy(), 1, name)[0, 0]


def normalised(frames: UInt8[np.ndarray, "t h w 3"]) -> Float32[Tensor, "t 3 h w"]:
    """Pixels of 0 ... 255 as networks take them: in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2))).float() / 127.5 - 1


def checked(scores: np.ndarray, batch: int, name: str) -> Float[np.ndarray, "b 1 h w"]:
    """What a network gave for `batch` inputs.

    Raises:
        ValueError: it is not (batch, 1, h, w), not finite, or not in [0, 1]. It names the network and what to do.
    """
    if scores.ndim != 4 or scores.shape[:2] != (batch, 1) or not scores.size:
        raise ValueError(f"{name} gives {tuple(scores.shape)} for {batch} frames; it must give ({batch}, 1, h, w)")
    if not np.isfinite(scores).all():
        raise ValueError(f"{name} gives NaN or infinite scores; its weights are broken, take an earlier version")
    low, high = float(scores.min()), float(scores.max())
    if low < -1e-4 or high > 1 + 1e-4:
        raise ValueError(
            f"{name} gives scores from {low:.3g} to {high:.3g}; they must be in [0, 1] (after the sigmoid)"
        )
    return scores.clip(0, 1)


def content_of(there: Place) -> bytes:
    """The bytes of a segmenter's file.

    Raises:
        ValueError: there is none, or it has another kind of name.
    """
    if there.suffix != ".pt2":
        raise ValueError(f"{there}: a network's file ends in .pt2; {CONTRACT}")
    try:
        return read_bytes(there)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise ValueError(f"{there}: no such network; {CONTRACT}") from None


def opened(content: bytes, name: str) -> ExportedProgram:
    """The program that a file holds.

    Raises:
        ValueError: it holds none.
    """
    try:
        return torch.export.load(io.BytesIO(content))
    except Exception as error:  # whatever a damaged archive makes of it
        raise ValueError(f"{name} is no exported program ({' '.join(str(error).split())[:200]}); {CONTRACT}") from None


def side_of(program: ExportedProgram, name: str) -> int:
    """The side of the square that the program takes.

    Raises:
        ValueError: it takes something else.
    """
    inputs = set(program.graph_signature.user_inputs)
    shapes = [
        tuple(node.meta["val"].shape) if isinstance(node.meta.get("val"), Tensor) else None
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in inputs
    ]
    shape = shapes[0] if len(shapes) == 1 else None
    if shape is None or not all(isinstance(side, int) for side in shape):
        raise ValueError(f"{name} takes {len(inputs)} inputs, or one whose size is open; {CONTRACT}")
    if len(shape) != 4 or shape[:2] != (1, 3) or shape[2] != shape[3]:
        raise ValueError(f"{name} takes {shape}; {CONTRACT}")
    return int(shape[2])


def function_sha256(name: str) -> str:
    """Digest of the file of the module that `name`, package.module:function, is in; nothing but its packages is imported.

    Raises:
        ValueError: there is no such module, or it has no file.
    """
    module = name.partition(":")[0]
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None or not spec.has_location:
        raise ValueError(f"{name}: there is no module {module}; install it, or put its folder on PYTHONPATH")
    return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()


def function_of(name: str) -> Callable[[np.ndarray], np.ndarray]:
    """The function that `name`, package.module:function, names.

    Raises:
        ValueError: the module cannot be imported, or has no such function.
    """
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function, None)
    except Exception as error:  # whatever the module does while it is imported
        raise ValueError(f"{name} cannot be imported: {' '.join(str(error).split())[:200]}") from None
    if not callable(found):
        raise ValueError(f"{name}: {module} has no function {function}")
    return found  # type: ignore[no-any-return]


@lru_cache(maxsize=1)
def _loaded(name: str, sha256: str) -> Callable[[UInt8[np.ndarray, "h w 3"]], Float32[np.ndarray, "y x"]]:
    """Frame -> scores; once a process."""
    if FUNCTION.fullmatch(name):
        if function_sha256(name) != sha256:
            raise ValueError(f"{name} is another file here than where this began; install the same everywhere")
        function = function_of(name)

        def segment(frame: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "y x"]:
            return checked(np.asarray(function(frame))[None, None], 1, name)[0, 0].astype(np.float32)

        return segment
    there = place(name)
    content = read_bytes(there)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"{there} is another file than when this began; put it back, or give another output folder")
    program = opened(content, name)
    side, call = side_of(program, name), program.module()
    return lambda frame: score_of(call, resized(frame, (side, side)), name)
