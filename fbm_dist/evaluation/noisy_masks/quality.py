"""How good the masks of a variant are: the mean intersection over union with the true masks, as pretraining sees both."""

from __future__ import annotations

import numpy as np
import torch

from fbm_dist.evaluation.world import shared_pass
from fbm_dist.schema import Data
from fbm_dist.training.distributed import World

THRESHOLD = 0.5  # of soft masks, as FBM's mask_threshold


@torch.inference_mode()
def mask_quality(data: Data, batch: int, world: World) -> float | None:
    """Mean over clips of the IoU of masks and true masks, both cut at 0.5, over a clip's frames; None where there is no truth.

    Clips in which neither has a pixel are left out.

    Args:
        data: read with its masks as a variant degrades them, and with truth.
    """
    found: list[float] = []
    clips = shared_pass(data, batch, world)
    with world.agreed():
        for clip in clips:
            if clip.truth is None or clip.mask is None:
                break
            mask, truth = clip.mask > THRESHOLD, clip.truth > THRESHOLD
            both = (mask & truth).flatten(1).sum(1).double()
            either = (mask | truth).flatten(1).sum(1).double()
            found += (both / either)[either > 0].tolist()
    shares = [value for share in world.gather(found) for value in share]
    return float(np.mean(shares)) if shares else None
