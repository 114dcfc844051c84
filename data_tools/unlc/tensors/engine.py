"""The optical-flow engine of NVIDIA GPUs (Turing and later), a circuit of its own beside their cores, through DALI.

`fn.optical_flow` gives, of a sequence, the flow from each frame back to the one before it: where a pixel of frame i was in frame i - 1. So
DALI's own code and test have it (`CalcOpticalFlow(ref = i - 1, in = i)`; the engine's flow goes from the input to the reference), its
documentation does not say (seen on an H100). Hence each pair is a sequence of two, the target first.

Grey frames go in as RGB: of single-channel ones DALI 2.4 makes fields that have nothing to do with the motion (H100, driver 580; all sizes
and grids that were tried, where RGB gave a shift of 3 pixels as 3.00 to 3.06).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from data_tools.unlc.tensors.pictures import interpolated

BATCH = 32  # pairs that are handed over at a time
GRIDS = (1, 4)  # pixels a vector, either way; Turing has 4 alone
PAIRS = "pairs"  # the pipeline's input


class Engine:
    """Flow from sources to targets, grey frames on one GPU. Not to be shared between threads."""

    def __init__(self, device: torch.device, grid: int) -> None:
        """`grid`: pixels that share a vector, either way; between them it is interpolated."""
        self._pipe = pipeline(device.index or 0, grid)
        self._grid = grid

    def __call__(self, sources: UInt8[Tensor, "n h w"], targets: UInt8[Tensor, "n h w"]) -> Float[Tensor, "n h w 2"]:
        """Where each pixel of the source is in the target: (dx, dy) in pixels, x to the right and y down.

        Raises:
            RuntimeError: the engine takes no frames of that size, or no such grid.
        """
        pairs = torch.stack([targets, sources], 1)[..., None].expand(-1, -1, -1, -1, 3)  # n 2 h w 3: FHWC
        height, width = sources.shape[1:]
        fields = [self._run(part.contiguous()) for part in pairs.split(BATCH)]
        return dense(torch.cat(fields), height, width, self._grid)

    def _run(self, pairs: UInt8[Tensor, "n 2 h w 3"]) -> Float[Tensor, "n y x 2"]:
        (fields,) = self._pipe.run(**{PAIRS: pairs})  # waits until they are there
        return torch.from_dlpack(fields.as_tensor())[:, 0].clone()  # the next run writes into the same memory


def pipeline(device_id: int, grid: int) -> Any:
    """The DALI pipeline: pairs of RGB frames in, one field of a vector per grid x grid pixels out. Not built yet."""
    from nvidia.dali import fn, types
    from nvidia.dali.pipeline import Pipeline

    pipe = Pipeline(batch_size=BATCH, num_threads=1, device_id=device_id, prefetch_queue_depth=1)
    with pipe:
        pairs = fn.external_source(
            name=PAIRS, device="gpu", layout="FHWC", dtype=types.DALIDataType.UINT8, ndim=4, batch=True
        )
        # no temporal hints: consecutive pairs of a batch need not belong together
        field = fn.optical_flow(pairs, image_type=types.DALIImageType.RGB, output_grid=grid, preset=0.0)
        pipe.set_outputs(field)
    return pipe


def dense(fields: Float[Tensor, "n y x 2"], height: int, width: int, grid: int) -> Float[Tensor, "n h w 2"]:
    """A vector per pixel: bilinear between the middles of the grid's cells. Vectors are in pixels of the frame, whatever the grid."""
    if grid == 1:
        return fields
    rows, columns = fields.shape[1:3]
    planes = fields.permute(0, 3, 1, 2).flatten(0, 1)
    planes = interpolated(planes, (rows * grid, columns * grid))[:, :height, :width]
    return planes.unflatten(0, (-1, 2)).permute(0, 2, 3, 1)


def opened(device: torch.device, size: tuple[int, int]) -> Engine:
    """The engine with the finest grid that it has for frames of `size` (height, width).

    Raises:
        RuntimeError: there is none, or it takes no such frames; the text says why.
    """
    found = _attempt(device, size)
    if isinstance(found, str):
        raise RuntimeError(f"no optical-flow engine for frames of {size[1]}x{size[0]} on {device}: {found}")
    return found


@lru_cache(maxsize=8)
def _attempt(device: torch.device, size: tuple[int, int]) -> Engine | str:
    """An engine that has worked, or why there is none: once a process, for every size."""
    reason = ""
    for grid in GRIDS:
        try:
            engine = Engine(device, grid)
            blank = torch.zeros(1, *size, dtype=torch.uint8, device=device)
            engine(blank, blank)
            return engine
        except (ImportError, RuntimeError) as error:  # no DALI; no library; no engine; no such size or grid
            reason = " ".join(str(error).split())[:200]
    return reason
