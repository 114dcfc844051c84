"""Photographs that scikit-image and scikit-learn bring along (no download), and endless crops and colours of them.

Attribution of the two that ask for it: china.jpg by danielbuechele and flower.jpg by vultilion, both CC BY 2.0, from scikit-learn.
"""

from __future__ import annotations

import functools

import cv2
import numpy as np
from jaxtyping import UInt8

# Class -> its photographs: more than one a class where there are, so that a class is not one picture.
BACKGROUNDS = {
    "building": ("china", "rocket"),
    "plants": ("flower", "grass"),
    "stone": ("brick", "gravel"),
    "room": ("coffee", "motorcycle"),
    "space": ("hubble_deep_field", "moon"),
}
# No photograph is both a background and the skin of a thing.
SKINS = {
    "ball": ("coins",),
    "box": ("page", "text"),
    "star": ("immunohistochemistry",),
    "figure": ("astronaut", "camera"),
    "blob": ("chelsea",),
}


@functools.cache
def load(name: str) -> UInt8[np.ndarray, "h w 3"]:
    """A bundled photograph as RGB; grey ones have three equal channels. Treat it as read-only.

    Raises:
        ValueError: the installed scikit-image does not hold it.
    """
    from skimage import data  # half a second to import, and only those who draw need it

    if name in ("china", "flower"):
        from sklearn.datasets import load_sample_image

        return np.ascontiguousarray(load_sample_image(f"{name}.jpg"))
    try:
        image = data.stereo_motorcycle()[0] if name == "motorcycle" else getattr(data, name)()
    except (AttributeError, ModuleNotFoundError, OSError) as error:
        raise ValueError(
            f"photograph {name!r} is not in the installed scikit-image ({error}); install >= 0.25"
        ) from None
    image = np.stack([image] * 3, axis=-1) if image.ndim == 2 else image[..., :3]
    return np.ascontiguousarray(image.astype(np.uint8))


def crop(
    photograph: UInt8[np.ndarray, "h0 w0 3"], size: tuple[int, int], rng: np.random.Generator, least: float = 0.6
) -> UInt8[np.ndarray, "h w 3"]:
    """A random part of a photograph, mirrored or not, brought to `size` (height, width).

    Args:
        least: side of the smallest part, as a share of the largest one of this shape.
    """
    rows, columns = photograph.shape[:2]
    factor = min(rows / size[0], columns / size[1]) * rng.uniform(least, 1.0)
    height, width = max(round(size[0] * factor), 2), max(round(size[1] * factor), 2)
    height, width = min(height, rows), min(width, columns)
    top, left = int(rng.integers(rows - height + 1)), int(rng.integers(columns - width + 1))
    part = photograph[top : top + height, left : left + width]
    if rng.random() < 0.5:
        part = part[:, ::-1]
    # area averaging keeps the picture free of moire where it shrinks
    method = cv2.INTER_AREA if factor > 1 else cv2.INTER_CUBIC
    return cv2.resize(np.ascontiguousarray(part), (size[1], size[0]), interpolation=method)


def recolour(
    image: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator, hue: float = 15.0
) -> UInt8[np.ndarray, "h w 3"]:
    """The same picture in other colours: grey is tinted, colour is turned by up to `hue` degrees; contrast varies."""
    if np.array_equal(image[..., 0], image[..., 1]) and np.array_equal(image[..., 1], image[..., 2]):
        image = _tint(image[..., 0], rng)
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV).astype(np.float32)
    hsv[..., 0] = np.mod(hsv[..., 0] + rng.uniform(-hue, hue) / 2, 180)  # OpenCV counts hue in steps of 2 degrees
    hsv[..., 1] *= rng.uniform(0.7, 1.2)
    hsv[..., 2] = hsv[..., 2] * rng.uniform(0.8, 1.15) + rng.uniform(-10, 20)
    return cv2.cvtColor(np.clip(hsv, 0, (179, 255, 255)).astype(np.uint8), cv2.COLOR_HSV2RGB)


def _tint(grey: UInt8[np.ndarray, "h w"], rng: np.random.Generator) -> UInt8[np.ndarray, "h w 3"]:
    """Grey levels run from a dark to a light colour of nearly the same hue."""
    hue = rng.uniform(0, 180)
    ends = np.array(
        [[[hue, rng.uniform(40, 140), rng.uniform(10, 50)], [(hue + 10) % 180, rng.uniform(10, 90), 250]]],
        dtype=np.uint8,
    )
    dark, light = cv2.cvtColor(ends, cv2.COLOR_HSV2RGB)[0].astype(np.float32)
    levels = np.arange(256, dtype=np.float32)[:, None] / 255
    return (dark + (light - dark) * levels).round().astype(np.uint8)[grey]
