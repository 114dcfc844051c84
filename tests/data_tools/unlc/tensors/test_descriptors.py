"""Descriptors of all regions of a shot, beside one frame at a time, on the same regions."""

from __future__ import annotations

import numpy as np
import torch

from data_tools.unlc import descriptors as cpu
from data_tools.unlc.config import Superpixels
from data_tools.unlc.superpixels import superpixels
from data_tools.unlc.tensors.descriptors import patch_corners, region_descriptors
from tests.moving_disc import scene


def test_equal_the_other_on_the_same_regions() -> None:
    """Exactly where the frame is whole numbers (place, R, G, B); elsewhere OpenCV's Lab and angles are looked up in tables, and a pixel
    near the edge of a bin may be in the next."""
    frames, _ = scene(3, (1, 0))
    labels = np.stack([superpixels(frame, Superpixels(number=80)) for frame in frames])
    number = int(labels.max()) + 3
    planar = torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous()
    found = region_descriptors(planar, torch.from_numpy(labels).int(), number)
    assert found.shape == (3, number, cpu.NUM_FEATURES)
    for frame, regions, ours in zip(frames, labels, found.numpy(), strict=True):
        expected = cpu.region_descriptors(frame, regions)
        ours = ours[: len(expected)]
        np.testing.assert_allclose(ours[:, 54:114], expected[:, 54:114], atol=1e-6)
        np.testing.assert_allclose(ours[:, 174:], expected[:, 174:], atol=1e-6)
        assert np.abs(ours[:, :54] - expected[:, :54]).mean() < 1e-4
        assert np.abs(ours[:, :54] - expected[:, :54]).max() < 0.05
        assert np.abs(ours[:, 114:174] - expected[:, 114:174]).mean() < 2e-3
    assert found.isfinite().all(), "also of regions that are not present"


def test_upright_and_level_edges_are_in_the_bins_of_the_other() -> None:
    frame = np.zeros((40, 40, 3), np.uint8)
    frame[:, 20:] = 200
    for shown in (frame, frame.transpose(1, 0, 2).copy(), frame[:, ::-1].copy()):
        labels = np.zeros((40, 40), np.int64)
        planar = torch.from_numpy(shown).permute(2, 0, 1)[None].contiguous()
        found = region_descriptors(planar, torch.from_numpy(labels)[None].int(), 1)[0].numpy()
        np.testing.assert_allclose(found[:, :54], cpu.region_descriptors(shown, labels)[:, :54], atol=1e-5)


def test_corners_equal_the_other() -> None:
    labels = np.zeros((40, 50), dtype=np.int64)
    labels[10:21, 20:31] = 1  # centre (15, 25)
    labels[38:, 48:] = 2  # in the corner
    found = patch_corners(torch.from_numpy(labels)[None].int(), 3)
    assert found[0].tolist() == cpu.patch_corners(labels).tolist() == [[12, 17], [8, 18], [25, 35]]
