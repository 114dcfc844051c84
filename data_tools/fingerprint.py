"""Perceptual hash of a frame: what survives another codec, size and brightness (pHash: Zauner 2010, section 3.2.1)."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import UInt8

SIDE = 32  # pixels of the square that is transformed
LOW = 8  # lowest frequencies of each direction that are kept
DULL = 4.0  # grey levels: a frame whose standard deviation is below it looks like every other black one


def fingerprint(image: UInt8[np.ndarray, "h w 3"]) -> str | None:
    """64 bits as 16 hex digits: which of the 8x8 lowest cosine coefficients exceed their median; None of a dull frame."""
    small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    if grey.std() < DULL:
        return None
    low = cv2.dct(grey)[:LOW, :LOW].ravel()
    bits = low > np.median(low[1:])  # the first is the mean brightness, which would move the median
    return np.packbits(bits).tobytes().hex()
