"""Soft masks of a clip, whatever makes them: motion (uNLC), a trained segmenter, both of them, or people."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain, pairwise
from typing import Any

import numpy as np
from jaxtyping import UInt8

from data_tools.frames import resized
from data_tools.places import Place
from data_tools.schema import Masks, Prepare

MASK_WINDOW = 110  # frames whose masks are computed together at most: the original's limit for a shot


def settled(settings: Prepare) -> Prepare:
    """The settings with the digest of the segmenter that they name, if any: from here on it is part of what shapes the samples.

    Raises:
        ValueError: there is no such segmenter, or it is another one than they say.
    """
    if not settings.masks.asks_network:
        return settings
    from data_tools.segmenter import with_segmenter

    return with_segmenter(settings)


def reachable(settings: Prepare, folder: Place) -> Prepare:
    """The settings for workers on other machines, which see `folder`: a copy of the segmenter, if any, is put there."""
    if not settings.masks.asks_network:
        return settings
    from data_tools.segmenter import lent

    return lent(settings, folder)


def soft_masks(
    working: list[np.ndarray],
    size: tuple[int, int],
    truth: np.ndarray | None,
    settings: Prepare,
    beat: Callable[[int], None],
) -> tuple[UInt8[np.ndarray, "t h w"] | None, Any]:
    """Soft scores * 255 of a clip, and where they come from. One frame shows no motion: uNLC gives it none."""
    kind = settings.masks.kind
    if kind == "given":
        return truth, kind
    if kind == "none" or (kind == "unlc" and len(working) < 2):
        return None, "none"
    scores: Iterable[np.ndarray]
    if kind == "network":
        scores = _network(working, settings.masks, beat)
    else:
        scores = chain.from_iterable(
            _motion(part, settings.masks, beat) for part in _even(working, -(-len(working) // MASK_WINDOW))
        )
    soft = [resized(np.ascontiguousarray(score), size) for score in scores]
    return np.rint(np.clip(np.stack(soft), 0, 1) * 255).astype(np.uint8), kind


def _network(working: list[np.ndarray], masks: Masks, beat: Callable[[int], None]) -> list[np.ndarray]:
    from data_tools.segmenter import network_masks

    return network_masks(working, masks, beat)


def _motion(working: list[np.ndarray], masks: Masks, beat: Callable[[int], None]) -> np.ndarray:
    from data_tools.unlc.device import method
    from data_tools.unlc.pieces import Opinion

    opinion = None
    if masks.kind == "combined":
        opinion = Opinion(np.stack(_network(working, masks, beat)), masks.network_share)
    return method(masks)(np.stack(working), opinion=opinion)


def _even(items: list[np.ndarray], parts: int) -> list[list[np.ndarray]]:
    bounds = [len(items) * i // parts for i in range(parts + 1)]
    return [items[a:b] for a, b in pairwise(bounds)]
