"""Clip: the only batch. Every loader makes it, every objective takes it."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

# The legend of shapes: b batch, c channel, t time, h height, w width, d feature.


@dataclass(frozen=True)
class Clip:
    """A batch of clips on one device.

    Attributes:
        video: in [-1, 1], RGB.
        mask: soft foreground scores in [0, 1], or None where they were not asked for.
        truth: true masks in [0, 1], likewise.
        frames: the index of each frame within its film.
        film: an integer id per film (negatives must come from another film).
        key: the samples' keys.
        labels: class index per clip by label name; -1 where a clip has no such label.
    """

    video: Float[Tensor, "b 3 t h w"]
    mask: Float[Tensor, "b 1 t h w"] | None
    truth: Float[Tensor, "b 1 t h w"] | None
    frames: Int64[Tensor, "b t"]
    film: Int64[Tensor, " b"]
    key: tuple[str, ...]
    labels: dict[str, Int64[Tensor, " b"]]

    def __len__(self) -> int:
        return self.video.shape[0]

    def to(self, device: torch.device | str) -> Clip:
        """The same clips on `device`."""
        moved: dict[str, Any] = {
            f.name: value.to(device) for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor)
        }
        return replace(self, labels={k: v.to(device) for k, v in self.labels.items()}, **moved)

    def required_mask(self, asker: str) -> Float[Tensor, "b 1 t h w"]:
        """`mask`, for a loss that cannot do without.

        Args:
            asker: who cannot do without, for the error.
        Raises:
            ValueError: there are none, or they do not fit the video.
        """
        if self.mask is None:
            raise ValueError(
                f"{asker} needs masks and the clip has none: set data.clip.mask=true, and prepare the data with masks"
            )
        expected = (self.video.shape[0], 1, *self.video.shape[2:])
        if tuple(self.mask.shape) != expected:
            raise ValueError(f"masks of {tuple(self.mask.shape)} do not fit the video; expected {expected}")
        return self.mask
