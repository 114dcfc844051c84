"""Region descriptors against a slow reference made of scikit-image's HOG and NumPy's histograms."""

from __future__ import annotations

import cv2
import numpy as np
from skimage.feature import hog

from data_tools.unlc.config import Superpixels
from data_tools.unlc.descriptors import NUM_FEATURES, PATCH, patch_corners, region_descriptors
from data_tools.unlc.superpixels import superpixels


def picture(height: int = 48, width: int = 64) -> np.ndarray:
    noise = np.random.default_rng(1).random((height, width, 3)).astype(np.float32)
    return np.uint8(255 * cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 1, cv2.NORM_MINMAX))


def reference(patch: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
    grey = cv2.cvtColor(patch, cv2.COLOR_RGB2GRAY).astype(np.float64) / 255
    gradients = hog(grey, 6, (5, 5), (3, 3), block_norm="L1")
    lab = cv2.cvtColor(patch.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    ranges = [(0, 255)] * 3 + [(0, 100), (-128, 127), (-128, 127)]
    channels = np.concatenate([patch.astype(np.float64), lab], -1)
    colours = [np.histogram(channels[..., i], 20, ranges[i])[0] / PATCH**2 for i in range(6)]
    return np.concatenate([gradients, *colours, [top / height, left / width]])


def test_equals_the_slow_reference() -> None:
    frame = picture()
    labels = superpixels(frame, Superpixels(number=40))
    found = region_descriptors(frame, labels)
    assert found.shape == (labels.max() + 1, NUM_FEATURES)
    assert NUM_FEATURES == 176
    for region, (top, left) in enumerate(patch_corners(labels)):
        expected = reference(frame[top : top + PATCH, left : left + PATCH], top, left, *labels.shape)
        np.testing.assert_allclose(found[region], expected, atol=2e-3, err_msg=f"region {region}")


def test_patches_are_centred_and_stay_inside() -> None:
    labels = np.zeros((40, 50), dtype=np.int64)
    labels[10:21, 20:31] = 1  # centre (15, 25)
    labels[38:, 48:] = 2  # in the corner
    assert patch_corners(labels).tolist() == [[12, 17], [8, 18], [25, 35]]


def test_superpixels_number_every_region_and_follow_edges() -> None:
    frame = np.zeros((60, 80, 3), dtype=np.uint8)
    frame[:, 37:] = (250, 200, 40)
    labels = superpixels(frame, Superpixels(number=50))
    assert set(np.unique(labels)) == set(range(labels.max() + 1))
    assert not set(np.unique(labels[:, :36])) & set(np.unique(labels[:, 38:])), "no region crosses the edge"
    flat = superpixels(np.zeros((60, 80, 3), np.uint8), Superpixels(number=50))
    assert 25 <= flat.max() + 1 <= 100


def test_superpixels_of_a_smaller_frame_cover_the_whole_one() -> None:
    """At half the size every region has whole blocks of pixels; frames too small for that are taken as they are."""
    frame = np.zeros((121, 161, 3), dtype=np.uint8)
    frame[:, 81:] = (250, 200, 40)
    settings = Superpixels(number=100, shrink=2)
    labels = superpixels(frame, settings)
    assert labels.shape == (121, 161)
    assert set(np.unique(labels)) == set(range(labels.max() + 1))
    assert not set(np.unique(labels[:, :79])) & set(np.unique(labels[:, 84:])), "no region crosses the edge"
    assert 50 <= labels.max() + 1 <= 150
    full = superpixels(frame, settings.model_copy(update={"shrink": 1}))
    assert (labels != full).any()
    few = settings.model_copy(update={"number": 400})
    np.testing.assert_array_equal(superpixels(frame, few), superpixels(frame, few.model_copy(update={"shrink": 1})))
