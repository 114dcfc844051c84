"""uNLC from end to end in tensors: the frames of a shot in, soft foreground masks out (Pathak et al. 2017, section 5.1)."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int32, UInt8
from torch import Tensor

from data_tools.flow import flow_size
from data_tools.unlc.appearance import appearance_saliency
from data_tools.unlc.config import UNLC
from data_tools.unlc.pieces import Frames, Opinion, Scores, in_pieces, working_size
from data_tools.unlc.tensors.descriptors import region_descriptors
from data_tools.unlc.tensors.flow import Maker, flow_of
from data_tools.unlc.tensors.graph import consensus_graph
from data_tools.unlc.tensors.pictures import chunks, grey, interpolated, resized
from data_tools.unlc.tensors.saliency import motion_saliency, normalise
from data_tools.unlc.tensors.scores import demote_small_blobs, guided_filter
from data_tools.unlc.tensors.superpixels import present, region_means, superpixels
from data_tools.unlc.tensors.voting import consensus

CPU = torch.device("cpu")


def motion_masks(
    frames: np.ndarray,
    settings: UNLC = UNLC(),  # noqa: B008  (frozen)
    device: torch.device = CPU,
    flow: Maker | None = None,
    opinion: Opinion | None = None,
) -> Scores:
    """Soft foreground scores in [0, 1] of the frames of one shot, at their own size: `data_tools.unlc.motion_masks` on a device.

    The same steps with the same settings, on all frames of a shot at once. Deterministic. Zeros where nothing moves of its own.
    Appearance, where too few frames have a dominant motion, is the CPU's: such shots are rare.

    Args:
        frames: uint8 (T, H, W, 3), RGB, one shot. Cut films first: votes would cross the cut.
        settings: `UNLC()` or `UNLC.paper()`.
        device: cpu or cuda; the CPU has the same lines, for tests.
        flow: who makes the optical flow, `flow_of` says how.
        opinion: a network's scores, which vote beside motion.
    Raises:
        ValueError: not uint8 (T, H, W, 3), or empty, or an opinion of other frames.
        RuntimeError: flow="engine" where there is none.
    """
    return in_pieces(frames, settings, partial(_masks_of_piece, device=device, flow=flow), opinion)


@torch.inference_mode()
def _masks_of_piece(
    frames: Frames, settings: UNLC, opinion: Opinion | None, *, device: torch.device, flow: Maker | None
) -> Scores:
    """The method itself, on frames that are few enough."""
    height, width = frames.shape[1:3]
    small = working_frames(frames, settings.working_side, device)
    votes = first_votes(small, settings, flow)
    heard = None if opinion is None else torch.from_numpy(np.ascontiguousarray(opinion.scores)).to(device)
    if not votes.any():
        still = torch.zeros(len(frames), 1, 1) if heard is None else heard
        return interpolated(still, (height, width)).cpu().numpy()
    labels, number = superpixels(small, settings.superpixels)
    size = small.shape[2], small.shape[3]
    first = region_means(labels, interpolated(votes, size), number)
    if opinion is not None and heard is not None:
        first = (1 - opinion.share) * first + opinion.share * region_means(labels, interpolated(heard, size), number)
    descriptors = region_descriptors(small, labels, number)
    graph = consensus_graph(descriptors, present(labels, number), settings.graph)
    agreed = consensus(first, graph, settings.voting)
    out = np.empty((len(frames), height, width), dtype=np.float32)
    for part in chunks(len(frames), 64 * small[0, 0].numel() + 8 * height * width, device):
        scores = _refined(agreed[part], labels[part], small[part], settings)
        out[part] = interpolated(scores, (height, width)).clamp_(0, 1).cpu().numpy()
    return out


def working_frames(frames: Frames, longer_side: int, device: torch.device) -> UInt8[Tensor, "t 3 y x"]:
    """The frames on the device, planar, at the size that is worked on (`working_size`)."""
    size = working_size(frames.shape[1], frames.shape[2], longer_side)
    out = torch.empty(len(frames), 3, *size, dtype=torch.uint8, device=device)
    for part in chunks(len(frames), frames[0].size, device):  # large films stay on the host
        picture = torch.from_numpy(np.ascontiguousarray(frames[part])).to(device)
        out[part] = resized(picture.permute(0, 3, 1, 2).contiguous(), size)
    return out


def first_votes(frames: UInt8[Tensor, "t 3 h w"], settings: UNLC, flow: Maker | None) -> Float[Tensor, "t y x"]:
    """Who votes before anyone is asked, in [0, 1]: motion saliency, or appearance where too few frames have a dominant motion."""
    motion = settings.motion
    size = flow_size(frames.shape[2], frames.shape[3], motion.size, motion.aspect)
    pictures = resized(grey(frames)[:, None], size)[:, 0]
    saliency, share = motion_saliency(pictures, motion, flow_of(motion, frames.device, flow, size))
    if len(frames) > 1 and share < motion.min_dominant:
        saliency = torch.from_numpy(appearance_saliency(_on_host(frames), size)).to(frames.device)
        return normalise(saliency, motion.model_copy(update={"floor": 0.0}))
    return normalise(saliency, motion)


def _refined(
    agreed: Float[Tensor, "t k"], labels: Int32[Tensor, "t h w"], frames: UInt8[Tensor, "t 3 h w"], settings: UNLC
) -> Float[Tensor, "t h w"]:
    scores = agreed.gather(1, labels.flatten(1).long()).view(labels.shape)
    scores = demote_small_blobs(scores, settings.blob_threshold, settings.blob_size)
    if not settings.guided_radius:
        return scores
    return guided_filter(scores, grey(frames), settings.guided_radius, settings.guided_epsilon)


def _on_host(frames: UInt8[Tensor, "t 3 h w"]) -> UInt8[np.ndarray, "t h w 3"]:
    return frames.permute(0, 2, 3, 1).contiguous().cpu().numpy()
