"""Bytes become numbers: exact ends of the range, channels first, mirrored clip by clip."""

from __future__ import annotations

import torch

from fbm_dist.data.decoding.pixels import MASK, VIDEO, normalized


def test_the_ends_of_the_range_are_exact() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 1, 16, 16)
    video, mask = (normalized(pixels, [False], scale) for scale in (VIDEO, MASK))
    assert (video.min(), video.max(), mask.min(), mask.max()) == (-1, 1, 0, 1)
    assert torch.allclose(video.flatten(), torch.linspace(-1, 1, 256), atol=1e-6)
    assert torch.equal(mask.flatten(), torch.arange(256) / 255)


def test_channels_come_first_and_only_the_chosen_clips_are_mirrored() -> None:
    pixels = torch.randint(0, 256, (3, 4, 3, 5, 6), dtype=torch.uint8)
    video = normalized(pixels, [False, True, False], VIDEO)
    assert video.shape == (3, 3, 4, 5, 6)
    assert video.is_contiguous()
    wanted = (pixels.transpose(1, 2).float() - 127.5) / 127.5
    assert torch.equal(video[[0, 2]], wanted[[0, 2]])
    assert torch.equal(video[1], wanted[1].flip(-1))
    interleaved = pixels.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)  # as DALI has it
    assert torch.equal(normalized(interleaved, [False, True, False], VIDEO), video)
