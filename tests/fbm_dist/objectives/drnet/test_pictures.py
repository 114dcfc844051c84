"""What the three families show, tile by tile, of networks for which every code makes another picture."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fbm_dist.clip import Clip
from fbm_dist.layers.pictures import looking, to_uint8
from fbm_dist.objectives.drnet.config import DrNetAutoencoderConfig, DrNetConfig, DrNetPredictionConfig
from fbm_dist.objectives.drnet.frames import as_frames
from fbm_dist.objectives.drnet.objective import DrNet
from tests.fbm_dist.objectives.drnet.lively import apart, cuts, enliven_

TINY: dict[str, Any] = {"width": 0.05, "content_dim": 8, "pose_dim": 3}
MUCH = 10  # grey levels by which tiles differ that must not be taken for each other; a rounding is 1
Drawn = tuple[DrNet, Clip, dict[str, Tensor]]


def tiles(picture: Tensor, row: int = -1) -> Tensor:
    """The tiles (n, i, 64, 64, 3) of one row of a picture; a title may stand above them."""
    top = picture.shape[1] + 2 + 66 * row if row < 0 else 66 * row
    number = (picture.shape[2] + 2) // 66
    return torch.stack([picture[:, top : top + 64, 66 * i : 66 * i + 64] for i in range(number)], dim=1)


def assert_same(found: Tensor, image: Tensor) -> None:
    """Up to a rounding: an image that was made in a batch of another size has other last bits."""
    assert (found.int() - to_uint8(image * 2 - 1).int()).abs().max().item() <= 1


@pytest.fixture
def drawn(make_clip: Any) -> Drawn:
    torch.manual_seed(0)
    objective, clip = DrNetConfig(**TINY, skips=True).build(), cuts(make_clip, 10, frames=4)
    enliven_(objective.model, as_frames(clip.video))
    return objective, clip, objective.visualize(clip)


def test_swap_has_the_content_of_the_row_and_the_pose_of_the_column(drawn: Drawn) -> None:
    objective, clip, pictures = drawn
    swap = pictures["swap"]
    assert swap.shape == (1, 9 * 66 - 2, 9 * 66 - 2, 3)
    rows = torch.stack([tiles(swap, row)[0] for row in range(9)])
    assert (rows[0, 0] == 255).all()
    assert torch.equal(rows[1:, 0], to_uint8(clip.video[:8, :, 0]))
    assert torch.equal(rows[0, 1:], to_uint8(clip.video[:8, :, -1]))
    with looking(objective):
        model = objective.model
        for i in range(8):
            still = model.encoder.still(clip.video[[i] * 8, :, 0])
            assert_same(rows[i + 1, 1:], model.decode(still, model.encoder.moving(clip.video[:8, :, -1])))
    assert min(apart(rows[1:, 1:], dim) for dim in (0, 1)) > MUCH, "any two contents, any two poses"


def test_reconstruction_and_interpolation_show_the_first_frames_content_at_every_pose(drawn: Drawn) -> None:
    """Poses on the way are of unit length again."""
    objective, clip, pictures = drawn
    assert pictures["interpolation"].shape == (8, 64, 7 * 66 - 2, 3)
    assert pictures["reconstruction"].shape[0::2] == (8, 4 * 66 - 2)
    frames, made = (tiles(pictures["reconstruction"], row) for row in (-2, -1))
    way = tiles(pictures["interpolation"])
    with looking(objective):
        model = objective.model
        still = model.encoder.still(clip.video[:8, :, 0])
        poses = [model.encoder.moving(frame) for frame in clip.video[:8].unbind(2)]
        for t, pose in enumerate(poses):
            assert torch.equal(frames[:, t], to_uint8(clip.video[:8, :, t]))
            assert_same(made[:, t], model.decode(still, pose))
        for i in range(7):
            pose = (6 - i) / 6 * poses[0] + i / 6 * poses[3]
            assert_same(way[:, i], model.decode(still, pose / pose.norm(dim=1, keepdim=True)))
    assert apart(made, 1) > MUCH
    assert apart(way, 1) > MUCH


def test_showing_leaves_no_trace(drawn: Drawn) -> None:
    """The modes and every weight stay as they were, and what is shown is the same again."""
    objective, clip, pictures = drawn
    objective.model.decoder.eval()  # some part that is not in train mode stays so
    state = {name: value.clone() for name, value in objective.state_dict().items()}
    again = objective.visualize(clip)
    assert set(again) == {"swap", "reconstruction", "interpolation"}
    assert all(picture.dtype == torch.uint8 and torch.equal(picture, pictures[name]) for name, picture in again.items())
    assert objective.model.encoder.training
    assert not objective.model.decoder.training
    assert all(torch.equal(value, state[name]) for name, value in objective.state_dict().items())


def test_a_single_code_makes_its_own_frame(make_clip: Any) -> None:
    torch.manual_seed(0)
    objective, clip = DrNetAutoencoderConfig(**TINY).build().train(), cuts(make_clip, 10, frames=4)
    enliven_(objective.model, as_frames(clip.video))
    picture = objective.visualize(clip)["reconstruction"]
    assert picture.shape[0::2] == (8, 4 * 66 - 2)
    frames, made = (tiles(picture, row) for row in (-2, -1))
    with looking(objective):
        for t in range(4):
            assert torch.equal(frames[:, t], to_uint8(clip.video[:8, :, t]))
            code = objective.encoder().moving(clip.video[:8, :, t])
            assert_same(made[:, t], objective.model.decoder(code, ()))
    assert apart(made, 1) > MUCH
    assert objective.model.encoder.training


def test_a_prediction_stands_below_the_frames_to_come(make_clip: Any) -> None:
    """First the last frame seen, above what its own content and pose make."""
    torch.manual_seed(0)
    config = DrNetPredictionConfig(frames=7, n_past=3, hidden=12, trunk=DrNetConfig(**TINY))
    objective, clip = config.build().train(), cuts(make_clip, 10, frames=7)
    enliven_(objective.model, as_frames(clip.video))
    with torch.no_grad():
        for parameter in objective.predictor.parameters():
            parameter.mul_(3)  # fresh ones say nearly the same pose each time
    picture = objective.visualize(clip)["prediction"]
    assert picture.shape[0::2] == (8, 5 * 66 - 2), "the last frame seen and four after it"
    frames, made = (tiles(picture, row) for row in (-2, -1))
    for i in range(5):
        assert torch.equal(frames[:, i], to_uint8(clip.video[:8, :, 2 + i]))
    with looking(objective):
        model, last = objective.model, clip.video[:8, :, 2]
        assert_same(made[:, 0], model.decode(model.encoder.still(last), model.encoder.moving(last)))
    following = objective.generate(clip.video[:8], 3, 4)
    assert all(torch.equal(made[:, 1 + i], to_uint8(following[:, :, i])) for i in range(4))
    assert apart(made, 1) > MUCH
    assert objective.predictor.training
