"""The motion-mask network as an objective: its loss recomputed, that it learns, and what it shows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fbm_dist.layers.pictures import to_uint8
from fbm_dist.objectives.motion_mask.config import MotionMaskConfig
from fbm_dist.objectives.motion_mask.objective import MotionMask
from fbm_dist.objectives.objective import Segmenter
from tests.fbm_dist.objectives.learning import train

SIZE = 67


def build(seed: int = 0, **settings: Any) -> MotionMask:
    torch.manual_seed(seed)
    return MotionMaskConfig.model_validate({"width": 0.05, "size": SIZE, "dropout": 0.0} | settings).build()


@pytest.fixture
def frames(make_clip: Any) -> Any:
    """frames(batch, seed): clips of one frame."""
    return lambda batch, seed=0, size=SIZE: make_clip(batch, size, seed, frames=1)


def test_the_total_by_hand(frames: Any) -> None:
    objective = build(loss_factor=5.0)
    clip = frames(3)
    clip.mask[0] *= 0.6  # nothing above 0.7 in this one
    loss = objective("model", clip)
    with torch.no_grad():
        logits = objective.model(clip.video[:, :, 0]).numpy()
    scores = F.adaptive_avg_pool2d(clip.mask[:, :, 0], 16).numpy()
    positive, negative = scores > 0.7, scores < 0.4
    each = np.log1p(np.exp(np.where(positive, -logits, logits))) * (positive | negative)
    found = logits > 0
    ious = []
    for clip_found, p, n in zip(found, positive, negative, strict=True):
        inside = clip_found & (p | n)
        ious.append((inside & p).sum() / (inside | p).sum() if (inside | p).any() else 1.0)
    expected = {
        "logistic": each.sum((1, 2, 3)).mean() / 256,
        "certain": (positive | negative).mean(),
        "positive": positive.mean(),
        "iou": np.mean(ious),
    }
    assert {name: term.item() for name, term in loss.terms.items()} == pytest.approx(expected, rel=1e-4)
    assert not positive[0].any()
    assert loss.total.item() == pytest.approx(5 * expected["logistic"], rel=1e-4)
    assert not any(term.requires_grad for term in loss.terms.values())
    summed = build(loss_factor=5.0, pixels="sum")("model", clip).total.item()
    assert summed == pytest.approx(256 * loss.total.item(), rel=1e-4)


def test_true_masks_are_for_the_log_alone(frames: Any) -> None:
    clip = frames(2)
    truth = clip.mask.clone()
    truth[0] = 0
    truth[0, ..., :8, :8] = 1
    plain, told = build()("model", clip), build()("model", replace(clip, truth=truth))
    assert torch.equal(plain.total, told.total)
    assert set(told.terms) - set(plain.terms) == {"iou_truth", "iou_truth_of_masks"}
    assert told.terms["iou_truth_of_masks"].item() == pytest.approx(0.5), "one mask is the truth, the other misses it"
    same = build()("model", replace(clip, truth=clip.mask)).terms
    assert same["iou_truth_of_masks"] == 1
    assert same["iou_truth"] < 1


def test_a_batch_without_a_certain_pixel_is_no_loss_and_no_nan(frames: Any) -> None:
    objective, clip = build(norm="batch"), frames(2)
    clip.mask.fill_(0.5)
    loss = objective("model", clip)
    loss.total.backward()
    assert loss.total == 0
    assert loss.terms["certain"] == 0
    assert all(p.grad is not None and not p.grad.any() for p in objective.parameters())


@pytest.mark.parametrize("norm", ["lrn", "batch", "none"])
def test_it_overfits_a_few_clips_and_segments_them(norm: str, frames: Any) -> None:
    objective, clip = build(norm=norm, width=0.1), frames(4)
    curve = [step["logistic"] for step in train(objective, clip, steps=60, lr=1e-3)]
    assert curve[-1] < 0.1 * curve[0], curve[::10]
    assert objective.eval()("model", clip).terms["iou"] > 0.9
    score, inside = objective.segment(clip.video), clip.mask[:, :, 0] == 1
    found = score > 0.5
    assert (found & inside).sum() / (found | inside).sum() > 0.65  # measured: 0.73; 16x16 pixels place no boundary


def test_the_same_seed_gives_the_same_bits(frames: Any) -> None:
    first, second, other = (build(seed, dropout=0.5) for seed in (1, 1, 2))
    curves = []
    for objective in (first, second, other):
        torch.manual_seed(7)  # dropout
        curves.append(train(objective, frames(2), steps=2, lr=1e-3))
    assert curves[0] == curves[1] != curves[2]
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_segment_sees_the_first_frame_alone_in_eval_mode(make_clip: Any) -> None:
    objective = build(norm="batch", dropout=0.5).train()
    objective("model", make_clip(4, SIZE, 0, frames=1))  # statistics that are not those of the start
    objective.model.head.eval()  # some part that is not in train mode stays so
    state = {name: value.clone() for name, value in objective.state_dict().items()}
    video = make_clip(2, SIZE, 1, frames=4).video
    assert isinstance(objective, Segmenter)
    score = objective.segment(video)
    assert score.shape == (2, 1, SIZE, SIZE)
    assert score.dtype == torch.float32
    assert not score.requires_grad
    assert 0 < score.min() < score.max() < 1
    assert torch.equal(score, objective.segment(video[:, :, :1]))
    assert objective.model.encoder.training
    assert not objective.model.head.training
    assert all(torch.equal(value, state[name]) for name, value in objective.state_dict().items())
    objective.eval()
    small = objective.model(video[:, :, 0]).sigmoid()
    torch.testing.assert_close(score, F.interpolate(small, (SIZE, SIZE), mode="bilinear"))


def test_features_are_the_encoders(make_clip: Any) -> None:
    """The encoder's weights are a prefix of the objective's, and fill the encoder that the config builds."""
    objective = build(norm="batch")
    train(objective, make_clip(2, SIZE, 0, frames=1), steps=1, lr=1e-3)
    state = {
        name.removeprefix("model.encoder."): value
        for name, value in objective.state_dict().items()
        if name.startswith("model.encoder.")
    }
    encoder = objective.config.build_encoder()
    encoder.load_state_dict(state)
    clip = replace(make_clip(2, SIZE, 3, frames=4), mask=None)
    ours, theirs = objective.eval().features(clip), encoder.eval()(clip.video)
    assert list(ours) == ["conv5", "fc6", "fc7"]
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert objective.encoder() is objective.model.encoder


@pytest.mark.filterwarnings("ignore:TF32 acceleration:UserWarning")
@pytest.mark.parametrize("norm", ["lrn", "batch"])
def test_bf16_autocast_keeps_the_loss_in_fp32_and_every_gradient(norm: str, frames: Any) -> None:
    clip, gradients = frames(4), list[Tensor]()
    for enabled in (False, True):
        objective = build(norm=norm)
        with torch.backends.mkldnn.flags(enabled=not enabled):  # as `start` has it for bf16
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
                loss = objective("model", clip)
            assert loss.total.dtype == torch.float32
            loss.total.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in objective.parameters())
        (gradient,) = (p.grad for name, p in objective.named_parameters() if name == "model.head.mask.weight")
        assert gradient is not None
        gradients.append(gradient.flatten())
    assert F.cosine_similarity(gradients[0], gradients[1], dim=0) > 0.95
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert objective.segment(clip.video).dtype == torch.float32


def test_the_picture_shows_frame_target_and_mask(frames: Any) -> None:
    objective, clip = build().train(), frames(10)
    clip.mask[0] = 0.5  # don't cares
    picture = objective.visualize(clip)["masks"]
    titles = picture.shape[1] - SIZE
    assert 8 <= titles <= 20
    assert picture.shape == (8, titles + SIZE, 3 * SIZE + 4, 3)
    frame, target, mask = (picture[:, titles:, left : left + SIZE] for left in (0, SIZE + 2, 2 * (SIZE + 2)))
    assert torch.equal(frame, to_uint8(clip.video[:8, :, 0]))
    assert set(target[0].unique().tolist()) == {128}
    assert {0, 255} <= set(target[1].unique().tolist()) <= {0, 128, 255}
    assert target[1][clip.mask[1, 0, 0] == 1].float().mean() > 200
    assert torch.equal(
        mask,
        (objective.segment(clip.video[:8]) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).expand(-1, -1, -1, 3),
    )


def test_what_decays() -> None:
    objective = build(norm="batch")
    factor = {name: objective.weight_decay(name, p) for name, p in objective.named_parameters()}
    assert factor["model.encoder.conv1.convolution.weight"] == factor["model.encoder.conv1.convolution.bias"] == 1
    assert factor["model.head.mask.bias"] == 1
    assert {name for name, value in factor.items() if value == 0} == {name for name in factor if ".norm." in name}
    # A trainer that wraps `objective.model` sees the names without their first part.
    assert objective.weight_decay("encoder.fc6.norm.bias", next(objective.parameters())) == 0


def test_clips_that_do_not_fit_are_refused(make_clip: Any, frames: Any) -> None:
    objective = build()
    with pytest.raises(ValueError, match=r"needs masks.*data\.clip\.mask=true"):
        objective("model", replace(frames(1), mask=None))
    with pytest.raises(ValueError, match=r"clips of one frame, got 16: set data\.clip\.frames=1"):
        objective("model", make_clip(1, SIZE))
    with pytest.raises(ValueError, match=r"takes frames of \(n, 3, 67, 67\).*data\.clip\.size=67"):
        objective("model", frames(1, size=99))
    broken = replace(frames(1))
    object.__setattr__(broken, "mask", broken.mask[..., ::2, ::2])  # past Clip's shapes, which tests check
    with pytest.raises(ValueError, match="do not fit the video"):
        objective("model", broken)
