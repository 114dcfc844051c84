"""Which frames are reconstructed, and which of their pixels count: the trimap, and any frame in place of the last."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fbm_dist.layers.pictures import looking, to_uint8
from fbm_dist.objectives.fbm.config import FBMConfig, Trimap
from fbm_dist.objectives.fbm.frames import at, target
from fbm_dist.objectives.fbm.kernels import KernelDecoder
from fbm_dist.objectives.fbm.losses import feature_distance, foreground_weights
from fbm_dist.objectives.fbm.network import FBMNetwork
from fbm_dist.objectives.fbm.objective import FBM
from tests.fbm_dist.objectives.learning import train


def build(seed: int = 0, **settings: Any) -> FBM:
    torch.manual_seed(seed)
    return FBMConfig.model_validate({"width": 0.05, "size": 64} | settings).build()


def test_weights_of_a_trimap_by_hand() -> None:
    """Areas are those of certain pixels: 2 of foreground, 8 of background, 6 don't cares; 8 / 2 = 4. Without foreground: all 0."""
    mask, known = torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4)
    mask[0, 0, 0, :2] = 1
    known[0, 0, 2, :] = known[0, 0, 3, :2] = 0
    weights = foreground_weights(mask, known)
    expected = torch.ones(4, 4)
    expected[0, :2] = 4
    expected[2, :] = expected[3, :2] = 0
    assert torch.equal(weights[0, 0], expected)
    assert not weights[1].any()
    assert torch.equal(foreground_weights(mask, torch.ones_like(mask)), foreground_weights(mask))


def test_a_trimap_parts_the_scores(make_clip: Any) -> None:
    clip = make_clip(1)
    assert clip.mask is not None
    clip.mask[0, 0, 0, 0, :5] = torch.tensor([0.2, 0.4, 0.55, 0.7, 0.8])
    first = target(clip, 0, FBMConfig(trimap=Trimap()))
    assert first.known is not None
    assert first.mask[0, 0, 0, :5].tolist() == [0, 0, 0, 0, 1]
    assert first.known[0, 0, 0, :5].tolist() == [1, 0, 0, 0, 1]  # the thresholds themselves are don't cares
    for image, kept in ((first.foreground, [0, 0, 0, 0, 1]), (first.background, [1, 0, 0, 0, 0])):
        assert torch.equal(image[0, :, 0, :5], first.frame[0, :, 0, :5] * torch.tensor(kept))
    assert target(clip, 0, FBMConfig()).known is None


def test_the_losses_of_a_trimap_in_numpy(make_clip: Any) -> None:
    objective, clip = build(trimap={"low": 0.3, "high": 0.6}), make_clip(3)
    assert clip.mask is not None
    clip.mask[:, :, :, :, 40:48] = 0.5  # a band of don't cares, across object and background
    clip.mask[1, :, -1] = clip.mask[1, :, -1] * 0.5  # nothing is certain to be foreground
    loss = objective("model", clip)
    with torch.no_grad():
        out = objective.model(clip.video)
    video, scores = clip.video.numpy(), clip.mask.numpy()

    def foreground(image: Tensor, t: int) -> float:
        found = []
        for i in range(3):
            fg, bg = scores[i, 0, t] > 0.6, scores[i, 0, t] < 0.3
            weight = np.where(fg, max(1.0, bg.sum() / max(fg.sum(), 1)), bg) * (fg.sum() > 0)
            found.append((weight * np.abs(image[i].numpy() - video[i, :, t] * fg)).mean())
        return float(np.mean(found))

    certain = scores[:, :, 0] < 0.3
    seen = certain | (scores[:, :, 0] > 0.6)
    background = np.abs(out.first_background.numpy() - video[:, :, 0] * certain) * seen
    uncertain = [((scores[:, :, t] >= 0.3) & (scores[:, :, t] <= 0.6)).mean() for t in (0, -1)]
    assert loss.terms["rec_first_foreground"].item() == pytest.approx(foreground(out.first_foreground, 0), rel=1e-4)
    assert loss.terms["rec_last_foreground"].item() == pytest.approx(foreground(out.last_foreground, -1), rel=1e-4)
    assert loss.terms["rec_first_background"].item() == pytest.approx(background.mean(), rel=1e-4)
    assert loss.terms["uncertain_share"].item() == pytest.approx(np.mean(uncertain), rel=1e-4)


def test_dont_cares_teach_nothing(make_clip: Any) -> None:
    """Whatever is seen where the mask is uncertain, no loss changes through its target."""
    clip, other = make_clip(2), make_clip(2)
    assert clip.mask is not None
    clip.mask[:, :, :, 20:30] = 0.5
    first = target(clip, 0, FBMConfig(trimap=Trimap()))
    other.video[:, :, :, 20:30] = 1
    object.__setattr__(other, "mask", clip.mask)
    same = target(other, 0, FBMConfig(trimap=Trimap()))
    for image, weights in ((first.foreground, first.weights), (first.background, first.known)):
        assert weights is not None
        assert not weights[:, :, 20:30].any()
        assert image.shape == (2, 3, 64, 64)
    assert torch.equal(first.foreground, same.foreground)
    assert torch.equal(first.background, same.background)


def test_thresholds_must_be_in_order() -> None:
    with pytest.raises(ValueError, match=r"trimap\.low=0\.8 is above trimap\.high=0\.7"):
        FBMConfig.model_validate({"trimap": {"low": 0.8}})


def test_a_frame_of_each_clip() -> None:
    video = torch.arange(2 * 3 * 4.0).reshape(2, 1, 3, 2, 2)
    found = at(video, torch.tensor([2, 0]))
    assert torch.equal(found[0], video[0, :, 2])
    assert torch.equal(found[1], video[1, :, 0])
    assert torch.equal(at(video, -1), video[:, :, 2])


@pytest.mark.parametrize("how", ["condition", "kernels"])
def test_a_random_frame_is_the_target_and_l_feat_is_of_the_last_alone(how: str, make_clip: Any) -> None:
    """Recomputed in numpy for the frames that a seed draws, one of which is the last."""
    objective, clip = build(random_frame=how, feature_weight=0.7), make_clip(4)
    draws = {seed: torch.randint(1, 16, (4,), generator=torch.Generator().manual_seed(seed)) for seed in range(20)}
    seed, t = next((seed, drawn) for seed, drawn in draws.items() if 1 <= (drawn == 15).sum() < 4)
    torch.manual_seed(seed)
    loss = objective("model", clip)
    with torch.no_grad():
        out = objective.model(clip.video, t)
        backwards = objective.encoder().maps(clip.video.flip(2)).foreground
    video, mask = clip.video.numpy(), clip.mask.numpy()
    random, feature = [], []
    for i, frame in enumerate(t.tolist()):
        b = mask[i, 0, frame]
        weight = np.where(b == 1, max(1.0, (b.size - b.sum()) / b.sum()), 1.0)
        random.append((weight * np.abs(out.last_foreground[i].numpy() - video[i, :, frame] * b)).mean())
        feature.append(((out.last_features[i] - backwards[i]) ** 2).mean().item() * (frame == 15))
    assert loss.terms["rec_random_foreground"].item() == pytest.approx(np.mean(random), rel=1e-4)
    assert loss.terms["feature"].item() == pytest.approx(np.mean(feature), rel=1e-4)
    rec = sum(term.item() for name, term in loss.terms.items() if name.startswith("rec_"))
    assert loss.total.item() == pytest.approx(rec + 0.7 * np.mean(feature), rel=1e-4)
    assert "rec_last_foreground" not in loss.terms


def test_l_feat_counts_the_last_frame_alone_by_hand() -> None:
    moved = torch.full((2, 1, 4, 4), 3.0, requires_grad=True)
    loss = feature_distance(moved, torch.ones(2, 1, 4, 4), torch.tensor([False, True]))
    assert loss.item() == 2.0  # (0 + 4) / 2
    loss.backward()
    assert moved.grad is not None
    assert not moved.grad[0].any()
    assert moved.grad[1].all()


def test_frames_are_drawn_from_the_second_to_the_last_and_validation_looks_at_the_last(make_clip: Any) -> None:
    objective, clip = build(random_frame="condition"), make_clip(64, size=4)
    drawn = torch.cat([objective._frame(clip) for _ in range(10)])
    assert sorted(drawn.unique().tolist()) == list(range(1, 16))
    torch.manual_seed(5)
    first = objective._frame(clip)
    torch.manual_seed(5)
    assert torch.equal(first, objective._frame(clip))
    state = torch.get_rng_state()
    assert objective.eval()._frame(clip).unique().tolist() == [15]
    assert torch.equal(state, torch.get_rng_state())
    assert build()._frame(clip) is None


def test_the_kernels_are_told_the_frame() -> None:
    motion = torch.rand(2, 8, 4, 4)
    early, late = torch.tensor([1, 1]), torch.tensor([15, 15])
    told = KernelDecoder(8, 4, random_frame="condition").eval()
    assert told.conv1.convolution.weight.shape[1] == 9
    assert not torch.allclose(told(motion, early), told(motion, late))
    assert torch.equal(told(motion), told(motion, late))
    bank = KernelDecoder(8, 4, random_frame="kernels").eval()
    assert bank.modulation is not None
    assert torch.equal(bank(motion, early), bank(motion, late)), "at the start every frame has the same kernels"
    bank(motion, torch.tensor([3, 3])).square().sum().backward()
    gradient = bank.modulation.of_frame.weight.grad
    assert gradient is not None
    assert gradient.abs().sum(dim=1).nonzero().flatten().tolist() == [3]
    with torch.no_grad():
        bank.modulation.of_frame.weight[1, :16] = -1.0  # scale 0: what is left is the offset, 0
    assert torch.equal(bank(motion, early), bank.conv3.bias.view(4, 4).T[None, :, :, None, None].expand(2, 4, 4, 4, 4))


def test_a_random_frame_costs_few_parameters() -> None:
    """At full size: one input map of a 3x3 convolution, or a scale and an offset of 2304 channels for 16 frames."""
    with torch.device("meta"):
        sizes = {how: FBMNetwork(FBMConfig(random_frame=how)) for how in ("condition", "kernels")}
    counts = {how: sum(p.numel() for p in network.parameters()) for how, network in sizes.items()}
    assert counts == {"condition": 176_806_916 + 2304 * 9, "kernels": 176_806_916 + 16 * 2 * 2304}


def test_the_frames_are_shown(make_clip: Any) -> None:
    objective, clip = build(random_frame="kernels"), make_clip(2)
    assert objective.model.kernel_decoder.modulation is not None
    torch.nn.init.normal_(
        objective.model.kernel_decoder.modulation.of_frame.weight, std=10
    )  # fresh, all frames are alike
    pictures = objective.visualize(clip)
    assert list(pictures) == ["reconstruction", "frames"]
    titles = pictures["frames"].shape[1] - (64 * 2 + 2)
    assert pictures["frames"].shape == (2, titles + 64 * 2 + 2, 4 * 64 + 3 * 2, 3)
    made = []
    for column, t in enumerate((4, 8, 11, 15)):
        shown = pictures["frames"][:, :, 66 * column : 66 * column + 64]
        with looking(objective):
            made.append(to_uint8(objective.model(clip.video, torch.full((2,), t)).last_foreground))
        assert torch.equal(shown[:, titles : titles + 64], to_uint8(clip.video[:, :, t] * clip.mask[:, :, t])), t
        assert torch.equal(shown[:, -64:], made[-1]), t
    for one, other in combinations(made, 2):
        assert (one.int() - other.int()).abs().amax(dim=(1, 2, 3)).min() > 8


@pytest.mark.parametrize("how", ["condition", "kernels"])
def test_it_learns_any_frame_of_one_clip(how: str, make_clip: Any) -> None:
    objective, clip = build(random_frame=how), make_clip(2)
    curve = [step["rec_random_foreground"] for step in train(objective, clip, steps=40)]
    assert np.mean(curve[-5:]) < 0.6 * np.mean(curve[:3]), curve
