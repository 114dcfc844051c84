"""Tensors as pictures for a human: 8-bit frames, laid out in a grid; and the state in which pictures are made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn
from torch.nn import functional as F

GAP = 2  # white pixels between two tiles
MIN_FONT = 8  # pixels; smaller cannot be read


def to_uint8(frames: Float[Tensor, "b c h w"]) -> UInt8[Tensor, "b h w c"]:
    """Frames in [-1, 1] (0 is mid-grey) as 8-bit, channels last, on the CPU; values outside are clipped."""
    pixels = (frames.detach().float().clamp(-1, 1) + 1) * 127.5
    return pixels.round().to(torch.uint8).permute(0, 2, 3, 1).cpu()


def grid(rows: Sequence[Sequence[UInt8[Tensor, "n h w 3"]]]) -> UInt8[Tensor, "n gh gw 3"]:
    """Tiles of equal size laid out as a grid, one picture per clip, with a white line between two tiles."""
    assert len({len(row) for row in rows}) == 1, "every row of a grid has the same number of tiles"
    lines = []
    for row in rows:
        tiles = [F.pad(tile, (0, 0, 0, GAP * (i < len(row) - 1)), value=255) for i, tile in enumerate(row)]
        lines.append(torch.cat(tiles, dim=2))
    lines = [F.pad(line, (0, 0, 0, 0, 0, GAP * (i < len(lines) - 1)), value=255) for i, line in enumerate(lines)]
    return torch.cat(lines, dim=1)


def titled(pictures: UInt8[Tensor, "n gh gw 3"], titles: Sequence[str]) -> UInt8[Tensor, "n th gw 3"]:
    """The same with a white line above each that has a title over every column; it also parts pictures that stand below each other."""
    width = (pictures.shape[2] + GAP) // len(titles)
    for size in range(max(width // 9, MIN_FONT), MIN_FONT - 1, -1):  # the largest that fits
        font = ImageFont.load_default(size)
        if max(font.getlength(title) for title in titles) <= width - GAP:
            break
    line = Image.new("RGB", (pictures.shape[2], size + 2 * GAP), "white")
    draw = ImageDraw.Draw(line)
    for column, title in enumerate(titles):
        draw.text((column * width + (width - GAP) // 2, GAP // 2), title, fill="black", font=font, anchor="ma")
    head = torch.from_numpy(np.array(line)).expand(len(pictures), -1, -1, -1)
    return torch.cat([head, pictures], dim=1)


@contextmanager
def looking(module: nn.Module) -> Iterator[None]:
    """Eval mode without gradient; afterwards every submodule is in the mode that it was in."""
    modes = {child: child.training for child in module.modules()}
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for child, training in modes.items():
            child.training = training
