"""Pictures: values, layout, and that looking changes nothing."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fbm_dist.layers.pictures import GAP, grid, looking, titled, to_uint8


def test_values() -> None:
    frames = torch.tensor([-1.0, 0.0, 1.0, 7.0]).reshape(1, 1, 1, 4).expand(1, 3, 1, 4).bfloat16()
    assert to_uint8(frames)[0, 0, :, 0].tolist() == [0, 128, 255, 255]


def test_a_grid_has_white_lines_between_its_tiles_only() -> None:
    tiles = [torch.full((2, 3, 4, 3), i * 10, dtype=torch.uint8) for i in range(4)]
    picture = grid([tiles[:2], tiles[2:]])
    assert picture.shape == (2, 3 + GAP + 3, 4 + GAP + 4, 3)
    assert [picture[1, r, c, 0].item() for r in (0, -1) for c in (0, -1)] == [0, 10, 20, 30]
    assert (picture[:, 3 : 3 + GAP] == 255).all()
    assert (picture[:, :, 4 : 4 + GAP] == 255).all()
    assert (picture == 255).sum() == 2 * 3 * (10 * GAP + 6 * GAP)


@pytest.mark.parametrize("side", [32, 64, 128])
def test_titles_stand_over_their_columns_and_leave_the_picture(side: int) -> None:
    tiles = [torch.full((2, side, side, 3), 100, dtype=torch.uint8) for _ in range(3)]
    plain = grid([tiles])
    picture = titled(plain, ("one", "", "last"))
    head = picture.shape[1] - side
    assert torch.equal(picture[:, head:], plain)
    ink = (picture[0, :head] < 255).any(dim=2).any(dim=0)
    column = side + GAP
    assert ink[:side].any()
    assert not ink[side : 2 * column].any()
    assert ink[2 * column :].any()


def test_looking_restores_each_mode_also_after_an_error() -> None:
    module = nn.Sequential(nn.Dropout(), nn.Dropout())
    module[1].eval()

    def fail() -> None:
        with looking(module):
            assert not module[0].training
            assert not torch.is_grad_enabled()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert module.training
    assert module[0].training
    assert not module[1].training
    assert torch.is_grad_enabled()
