"""SLIC in tensors: k-means as scikit-image's, regions that follow edges, and means over them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.segmentation import slic
from torch import Tensor

from data_tools.unlc import superpixels as cpu
from data_tools.unlc.config import Superpixels
from data_tools.unlc.tensors.superpixels import present, region_means, superpixels
from tests.moving_disc import scene


def planar(frames: np.ndarray) -> Tensor:
    return torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous()


def test_agrees_with_scikit_image_on_most_pixels() -> None:
    """Its regions are as ours before it makes them connected, but for a pixel that chose a centre two cells away."""
    frames, _ = scene(2, (1, 0))
    settings = Superpixels(number=150, blur=2.0, iterations=10, shrink=1)
    labels, number = superpixels(planar(frames), settings)
    for frame, ours in zip(frames, labels.numpy(), strict=True):
        lab = cpu.lab_frame(frame, settings.blur)
        theirs = slic(
            lab,
            n_segments=settings.number,
            compactness=settings.compactness / float(lab.max() - lab.min()),
            max_num_iter=settings.iterations,
            convert2lab=False,
            enforce_connectivity=False,
            start_label=0,
            channel_axis=-1,
        )
        assert theirs.max() + 1 == number
        assert (ours == theirs).mean() > 0.94


def test_regions_follow_edges_and_stay_small() -> None:
    frame = np.zeros((1, 60, 80, 3), dtype=np.uint8)
    frame[:, :, 37:] = (250, 200, 40)
    labels, number = superpixels(planar(frame), Superpixels(number=50, shrink=1))
    assert not set(labels[0, :, :37].unique().tolist()) & set(labels[0, :, 37:].unique().tolist())
    assert 40 <= number <= 60
    for region in labels.unique():
        rows, columns = torch.nonzero(labels[0] == region, as_tuple=True)
        assert max(rows.max() - rows.min(), columns.max() - columns.min()) < 30


@pytest.mark.parametrize("shape", [(32, 32), (33, 320), (47, 35)])
@pytest.mark.parametrize("number", [4, 50, 2000])
def test_every_size_is_covered(shape: tuple[int, int], number: int) -> None:
    generator = np.random.default_rng(0)
    frames = generator.integers(0, 256, (2, *shape, 3), dtype=np.uint8)
    for shown in (frames, np.full_like(frames, 80)):
        labels, count = superpixels(planar(shown), Superpixels(number=number, shrink=1))
        assert labels.shape == (2, *shape)
        assert 0 <= labels.min() <= labels.max() < count
        assert present(labels, count).sum() > 0.5 * count, "few centres are without pixels"


def test_frames_do_not_mix() -> None:
    frames, _ = scene(3, (1, 0))
    together, _ = superpixels(planar(frames), Superpixels(number=100, shrink=1))
    alone, _ = superpixels(planar(frames[1:2]), Superpixels(number=100, shrink=1))
    assert torch.equal(together[1:2], alone)


def test_region_means_equal_the_other() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 20, (3, 24, 30))
    values = generator.random((3, 24, 30)).astype(np.float32)
    found = region_means(torch.from_numpy(labels).int(), torch.from_numpy(values), 22)
    for i in range(3):
        np.testing.assert_allclose(found[i, :20].numpy(), cpu.region_means(labels[i], values[i], 20), atol=1e-6)
    assert not found[:, 20:].any(), "0 where a region is not present"
    assert present(torch.from_numpy(labels).int(), 22)[:, :20].all()
    assert not present(torch.from_numpy(labels).int(), 22)[:, 20:].any()


def test_regions_of_a_smaller_frame_cover_the_whole_one() -> None:
    """Whole blocks of pixels, as in the CPU's; the same number of regions in every frame."""
    frame = np.zeros((121, 161, 3), dtype=np.uint8)
    frame[:, 81:] = (250, 200, 40)
    settings = Superpixels(number=100, shrink=2)
    labels, number = superpixels(planar(frame[None]), settings)
    assert labels.shape == (1, 121, 161)
    assert int(labels.max()) < number
    left, right = (set(part.flatten().tolist()) for part in (labels[0, :, :79], labels[0, :, 84:]))
    assert not left & right, "no region crosses the edge"
    whole, _ = superpixels(planar(frame[None]), settings.model_copy(update={"shrink": 1}))
    assert (labels != whole).any()
