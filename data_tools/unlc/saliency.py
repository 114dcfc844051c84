"""Motion saliency of a shot: what deviates from the dominant motion (Pathak et al. 2017, section 5.1; Faktor & Irani 2014, section 3.1)."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from data_tools.flow import OpticalFlow, flow_size, flows_around, grey_frames
from data_tools.unlc.config import Motion
from data_tools.unlc.dominant import deviation

Frames = UInt8[np.ndarray, "t h w 3"]


def motion_saliency(frames: Frames, settings: Motion) -> tuple[Float32[np.ndarray, "t y x"], float]:
    """Saliency at the flow's size, not yet normalised, and the share of frames that had a dominant motion.

    A frame's saliency is the mean over its flows that have a dominant motion, each smoothed by a box; zeros where there is none.
    """
    height, width = frames.shape[1:3]
    size = flow_size(height, width, settings.size, settings.aspect)
    grey = grey_frames(frames, size)
    flow = OpticalFlow(settings.preset, settings.finest)
    saliency = np.zeros((len(frames), *size), dtype=np.float32)
    num_dominant = 0
    for i in range(len(frames)):
        found = [deviation(field, settings) for _, field in flows_around(grey, i, settings.baselines, flow)]
        deviations = [one for one in found if one is not None]
        if deviations:
            num_dominant += 1
            mean = np.mean(np.stack(deviations), axis=0)
            saliency[i] = cv2.blur(mean, (settings.box, settings.box), borderType=cv2.BORDER_REFLECT)
    return saliency, num_dominant / len(frames)


def normalise(saliency: Float32[np.ndarray, "t y x"], settings: Motion) -> Float32[np.ndarray, "t y x"]:
    """Votes in [0, 1]: the border is cleared, then all is divided by the maximum (of the shot, or of each frame).

    A maximum below `floor` is taken for noise and not stretched to 1.
    """
    votes = saliency.copy()
    band = round(settings.border * min(votes.shape[1:]))
    if band:
        votes[:, :band] = votes[:, -band:] = 0
        votes[:, :, :band] = votes[:, :, -band:] = 0
    largest = votes.max(axis=(1, 2) if settings.scale == "frame" else None, keepdims=True)
    largest = np.maximum(largest, settings.floor)
    return np.divide(votes, largest, out=np.zeros_like(votes), where=largest > 0)
