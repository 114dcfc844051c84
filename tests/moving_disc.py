"""A textured disc that moves over a textured ground under a panning camera, with its true masks: what motion masks are tested on."""

from __future__ import annotations

import cv2
import numpy as np


def texture(height: int, width: int, seed: int, colour: tuple[int, int, int]) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(height, width)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2)
    return np.uint8(np.clip(np.array(colour) * (1 + 0.4 * smooth / max(smooth.std(), 1e-6))[..., None], 0, 255))


def scene(
    num_frames: int, camera: tuple[int, int], height: int = 96, width: int = 128
) -> tuple[np.ndarray, np.ndarray]:
    """A textured disc that moves over a textured ground under a panning camera: frames and true masks."""
    margin = 4 * num_frames + 8
    ground = texture(height + 2 * margin, width + 2 * margin, 0, (70, 120, 60))
    thing = texture(height, width, 1, (190, 90, 70))
    y, x = np.mgrid[:height, :width]
    frames, masks = [], []
    for t in range(num_frames):
        top, left = margin + camera[1] * t, margin + camera[0] * t
        centre = 40 + 2 * t, 44 + t
        mask = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < 18**2
        moved = np.roll(thing, (t, 2 * t), axis=(0, 1))
        frames.append(np.where(mask[..., None], moved, ground[top : top + height, left : left + width]))
        masks.append(mask)
    return np.stack(frames).astype(np.uint8), np.stack(masks)


def overlap(scores: np.ndarray, truth: np.ndarray) -> float:
    found = scores > 0.5
    return float((found & truth).sum() / (found | truth).sum())
