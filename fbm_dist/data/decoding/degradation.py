"""Masks made worse on purpose, to learn what their quality is worth (Pathak et al., "Learning Features by Watching Objects Move", 4.3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from fbm_dist.schema import Degrade

INSIDE = 0.5  # the box of a mask stands around what scores above it, as in data_tools.prune


def degraded(masks: Float[Tensor, "b 1 t h w"], how: Degrade, numbers: Sequence[float]) -> Float[Tensor, "b 1 t h w"]:
    """Masks as `how` says, on their device.

    Boxes stand, frame by frame, around what scores above `INSIDE`; where nothing does, there is no strip to lose, and a filled box
    is empty. Boundaries need no threshold: the least or the greatest score of a square, so soft masks stay soft.

    Args:
        masks: scores in [0, 1], as large as they are shown and mirrored already.
        numbers: of each clip one in [0, 1), which draws for all of its frames: eroded (below a half) or dilated; top, bottom,
            left or right, a quarter each. The other kinds leave nothing to chance.
    Returns:
        A new tensor; the given one stays as it is.
    """
    if how.kind == "full":
        return torch.ones_like(masks)
    if how.kind == "box":
        down, across = _extents(masks)
        return (down.unsqueeze(-1) & across.unsqueeze(-2)).to(masks.dtype)
    found = torch.empty_like(masks)
    for clip, number, into in zip(masks, numbers, found, strict=True):
        if how.kind == "boundary":
            assert how.kernel is not None
            into.copy_(-_dilated(-clip, how.kernel) if number < 0.5 else _dilated(clip, how.kernel))
        else:
            assert how.share is not None
            into.copy_(_truncated(clip, how.share, int(number * 4)))
    return found


def _dilated(scores: Float[Tensor, "1 t h w"], kernel: int) -> Float[Tensor, "1 t h w"]:
    """The maximum of a square around each pixel; what lies beyond the edge of the frame does not count."""
    half = kernel // 2
    widened = functional.pad(scores, (half, half, half, half), value=-torch.inf)
    for axis in (-1, -2):
        window = 1
        # the maximum of two windows is that of one up to twice as long: far cheaper than max_pool2d
        while window < kernel:
            step = min(window, kernel - window)
            length = widened.shape[axis] - step
            widened = torch.maximum(widened.narrow(axis, 0, length), widened.narrow(axis, step, length))
            window += step
    return widened


def _truncated(scores: Float[Tensor, "1 t h w"], share: float, side: int) -> Float[Tensor, "1 t h w"]:
    """Zero, in each frame, a strip of its box at one side, and the faint scores that lie beyond it on that side.

    The strip is as long as the box and `share` of it wide, to the nearest whole pixel.

    Args:
        side: 0 top, 1 bottom, 2 left, 3 right.
    """
    extent = _extents(scores)[side // 2]
    lines = extent.sum(-1, keepdim=True)
    left = lines - (lines.double() * share + 0.5).floor()
    # of each line, how many of the box lie from it on towards the side that stays
    onwards = extent.cumsum(-1) if side % 2 else extent.flip(-1).cumsum(-1).flip(-1)
    gone = onwards > left
    return scores.masked_fill(gone.unsqueeze(-1 if side < 2 else -2), 0.0)


def _extents(scores: Float[Tensor, "*n h w"]) -> tuple[Bool[Tensor, "*n h"], Bool[Tensor, "*n w"]]:
    """Which rows and which columns the box of each frame spans; none where it has no box."""
    return _between(scores.amax(-1) > INSIDE), _between(scores.amax(-2) > INSIDE)


def _between(some: Bool[Tensor, "*n s"]) -> Bool[Tensor, "*n s"]:
    """True from the first to the last that is."""
    return (some.cumsum(-1) > 0) & (some.flip(-1).cumsum(-1) > 0).flip(-1)
