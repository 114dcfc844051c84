"""Whether an exported program gives what the module gives that it was made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from fbm_dist.registry.folder import Description

# How far a float32 feature may be off: this share of the largest one of its group, or of 1 where that is smaller. Other kernels add up in
# another order; 1e-6 is what is usually seen, and an error in the graph is of the size of the features themselves.
TOLERANCE = 1e-4
BATCHES = (1, 3)  # neither is the number of clips that programs are traced with
Call = Callable[[Tensor], Mapping[str, Tensor]]


def random_clips(description: Description, batch: int) -> Tensor:
    """The same float32 (batch, 3, t, h, w) in [-1, 1] every time, as the encoder takes them."""
    frames, size = description.objective.frames, description.objective.size
    generator = torch.Generator().manual_seed(batch)
    return torch.rand(batch, 3, frames, size, size, generator=generator) * 2 - 1


@torch.no_grad()
def check_agrees(call: Call, encoder: Call, clips: Sequence[Tensor], name: str, tolerance: float = TOLERANCE) -> float:
    """Compare on `clips`; returns the largest difference, as a share of the largest feature.

    Raises:
        ValueError: the features have other names or shapes, or are further apart than `tolerance`; in one line that begins with `name`.
    """
    worst = 0.0
    for video in clips:
        wanted, found = encoder(video), call(video)
        if list(found) != list(wanted):
            raise ValueError(f"{name} gives {', '.join(found)}, and the original {', '.join(wanted)}")
        for group, value in wanted.items():
            if found[group].shape != value.shape:
                raise ValueError(f"{name} gives {group} of {tuple(found[group].shape)}, not {tuple(value.shape)}")
            scale = max(1.0, float(value.abs().max()))
            far = float((found[group].float() - value.float()).abs().max()) / scale
            if not far <= tolerance:
                raise ValueError(
                    f"{name}: its values of {group} are {far:.2g} from the original's for a batch of {len(video)} "
                    f"(allowed: {tolerance:g}); a defect, please report it"
                )
            worst = max(worst, far)
    return worst
