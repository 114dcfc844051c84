"""Who computes the optical flow of a batch of pairs: DIS on the host, everywhere, or the engine of an NVIDIA GPU."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from data_tools.flow import OpticalFlow
from data_tools.unlc.config import Motion

# grey pairs (sources, targets) -> where each pixel of the source is in the target: (dx, dy) in pixels, x to the right and y down
Flow = Callable[[UInt8[Tensor, "n h w"], UInt8[Tensor, "n h w"]], Float[Tensor, "n h w 2"]]
Maker = Literal["dis", "engine"]


def flow_of(settings: Motion, device: torch.device, maker: Maker | None, size: tuple[int, int]) -> Flow:
    """The flow for frames of `size` (height, width) on `device`.

    Args:
        maker: None: the engine on a GPU that has one, else DIS, with a warning on a GPU.
    Raises:
        RuntimeError: `maker` is "engine", and there is none for such frames.
    """
    if maker == "dis" or (maker is None and device.type == "cpu"):
        return dis(settings)
    if device.type == "cpu":
        raise RuntimeError("the optical-flow engine is a GPU's: it takes tensors of a cuda device")
    from data_tools.unlc.tensors.engine import opened

    try:
        return opened(device, size)
    except RuntimeError as error:
        if maker == "engine":
            raise
        warnings.warn(f"{error}; DIS on the CPU makes the flow", stacklevel=2)
        return dis(settings)


def dis(settings: Motion) -> Flow:
    """Dense inverse search on the host (`data_tools.flow`), one pair after the other; the fields go to the frames' device."""
    flow = OpticalFlow(settings.preset, settings.finest)

    def fields(sources: Tensor, targets: Tensor) -> Tensor:
        pairs = zip(sources.cpu().numpy(), targets.cpu().numpy(), strict=True)
        return torch.from_numpy(np.stack([flow(source, target) for source, target in pairs])).to(sources.device)

    return fields
