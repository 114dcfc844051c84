"""Perceptual hashes: what looks alike has nearly the same bits, what does not has not."""

from __future__ import annotations

import cv2
import numpy as np

from data_tools.fingerprint import fingerprint
from tests.films import picture


def distance(a: np.ndarray, b: np.ndarray) -> int:
    first, second = fingerprint(a), fingerprint(b)
    assert first is not None
    assert second is not None
    return (int(first, 16) ^ int(second, 16)).bit_count()


def test_size_brightness_and_compression_change_few_bits() -> None:
    for seed in range(10):
        image = cv2.GaussianBlur(picture(seed, 0, 240, 320), (15, 15), 5)
        smaller = cv2.resize(image, (100, 76), interpolation=cv2.INTER_AREA)
        darker = (image * 0.8).astype(np.uint8)
        _, packed = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 30])
        worse = cv2.imdecode(packed, cv2.IMREAD_COLOR)
        assert max(distance(image, other) for other in (smaller, darker, worse)) <= 8, seed


def test_other_pictures_differ_in_about_half_of_the_bits() -> None:
    images = [cv2.GaussianBlur(picture(seed, 0, 240, 320), (15, 15), 5) for seed in range(12)]
    distances = [distance(a, b) for i, a in enumerate(images) for b in images[:i]]
    assert min(distances) > 12
    assert 24 < np.mean(distances) < 40


def test_a_dull_frame_has_none() -> None:
    assert fingerprint(np.full((50, 70, 3), 7, np.uint8)) is None
