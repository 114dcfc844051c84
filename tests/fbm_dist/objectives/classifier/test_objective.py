"""The classifier: cross entropy by hand, what a frozen trunk may not do, and that it learns."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from fbm_dist.clip import Clip
from fbm_dist.objectives.classifier.config import ClassifierConfig
from fbm_dist.objectives.classifier.objective import Classifier, feature_sizes
from fbm_dist.objectives.fbm.config import FBMConfig
from tests.fbm_dist.objectives.learning import train

TRUNK = {"family": "fbm", "width": 0.05, "size": 64}


def build(seed: int = 0, **settings: Any) -> Classifier:
    torch.manual_seed(seed)
    return ClassifierConfig.model_validate({"trunk": TRUNK, "classes": 3} | settings).build()


def with_labels(clip: Clip, *labels: int) -> Clip:
    return replace(clip, labels={"action": torch.tensor(labels)})


def test_cross_entropy_and_accuracy_by_hand(make_clip: Any) -> None:
    """With the head's weights at 0 the logits are its bias: (0, ln 2, 0) gives probabilities 1/4, 1/2, 1/4."""
    objective = build()
    with torch.no_grad():
        objective.model.head.weight.zero_()
        objective.model.head.bias.copy_(torch.tensor([0.0, math.log(2), 0.0]))
    loss = objective("model", with_labels(make_clip(4), 1, 0, -1, 2))
    assert loss.total.item() == pytest.approx((math.log(2) + 2 * math.log(4)) / 3)
    assert loss.terms["cross_entropy"].item() == pytest.approx(loss.total.item())
    assert loss.terms["accuracy"].item() == pytest.approx(1 / 3)
    assert loss.terms["labelled"].item() == pytest.approx(3 / 4)


def test_a_clip_without_the_label_teaches_nothing(make_clip: Any) -> None:
    objective = build()
    loss = objective("model", with_labels(make_clip(2), -1, -1))
    assert loss.total.item() == 0
    loss.total.backward()
    assert all(p.grad is not None and not p.grad.any() for p in objective.parameters())


def test_features_are_joined_in_the_encoders_order(make_clip: Any) -> None:
    objective, clip = build().eval(), make_clip(2)
    features = objective.features(clip)
    assert list(features) == ["foreground", "background", "motion"]
    joined = torch.cat([features["foreground"], features["background"], features["motion"]], dim=1)
    torch.testing.assert_close(objective.logits(clip.video), objective.model.head(joined))


def test_feature_sizes_of_the_full_network_are_the_papers_8192() -> None:
    assert feature_sizes(FBMConfig()) == {"foreground": 2720, "background": 2720, "motion": 2752}


def test_a_frozen_trunk_stays_as_it_is(make_clip: Any) -> None:
    objective = build(frozen=True)
    objective.train()
    assert not objective.model.trunk.training
    assert objective.model.head.training
    before = {name: value.clone() for name, value in objective.model.trunk.state_dict().items()}
    optimizer = torch.optim.Adam(objective.parameters(), lr=1e-2, weight_decay=0.1)
    objective("model", with_labels(make_clip(3), 0, 1, 2)).total.backward()
    optimizer.step()
    assert all(p.grad is None for p in objective.model.trunk.parameters())
    assert all(torch.equal(value, before[name]) for name, value in objective.model.trunk.state_dict().items())
    assert objective.model.head.weight.grad is not None
    assert objective.model.head.weight.grad.any()


@pytest.mark.parametrize("factor", [0.5, 0.0])
def test_the_gradient_into_the_encoder_is_scaled(make_clip: Any, factor: float) -> None:
    clip = with_labels(make_clip(3), 0, 1, 2)
    whole, part = build(), build(encoder_gradient=factor)
    for objective in (whole, part):
        objective("model", clip).total.backward()
    torch.testing.assert_close(part.model.head.weight.grad, whole.model.head.weight.grad)
    for ours, full in zip(part.model.trunk.parameters(), whole.model.trunk.parameters(), strict=True):
        if factor == 0:
            assert ours.grad is None
        else:
            torch.testing.assert_close(ours.grad, factor * full.grad)
    # Unlike a frozen trunk, this one is in train mode: its statistics follow the data.
    assert part.model.trunk.mapping.norm.num_batches_tracked == 1


def test_weight_decay() -> None:
    tuned, frozen, probe = build(), build(frozen=True), build(encoder_gradient=0.0)
    for name, parameter in tuned.named_parameters():
        expected = 0 if ".norm." in name else 1
        assert tuned.weight_decay(name, parameter) == expected, name
        expected = 1 if "head" in name else 0
        assert frozen.weight_decay(name, parameter) == probe.weight_decay(name, parameter) == expected, name


@pytest.mark.parametrize("frozen", [True, False])
def test_it_learns_four_clips(make_clip: Any, frozen: bool) -> None:
    objective, clip = build(frozen=frozen), with_labels(make_clip(4), 0, 1, 2, 1)
    objective.model.trunk.train()
    with torch.no_grad():  # the statistics of a pretrained encoder are those of its data
        for _ in range(30):
            objective.features(clip)
    objective.train()
    last = train(objective, clip, steps=40, lr=1e-2)[-1]
    assert last["total"] < 0.1
    assert last["accuracy"] == 1


def test_labels_that_do_not_fit_are_refused(make_clip: Any) -> None:
    objective, clip = build(label="action"), make_clip(2)
    with pytest.raises(ValueError, match=r"no label 'action'; its labels: motion, object: set objective\.label"):
        objective("model", replace(clip, labels={"object": torch.zeros(2).long(), "motion": torch.zeros(2).long()}))
    with pytest.raises(ValueError, match=r"class index 3; set objective\.classes to more than 3"):
        objective("model", with_labels(clip, 0, 3))


def test_the_trunk_is_the_encoder(make_clip: Any) -> None:
    """An encoder pretrained elsewhere fills it."""
    pretrained = FBMConfig.model_validate(TRUNK).build()
    objective = build()
    objective.encoder().load_state_dict(pretrained.encoder().state_dict())
    clip = make_clip(2)
    ours, theirs = objective.eval().features(clip), pretrained.eval().features(clip)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.filterwarnings("ignore:TF32 acceleration:UserWarning")
def test_bf16_autocast(make_clip: Any) -> None:
    objective = build()
    with torch.backends.mkldnn.flags(enabled=False):  # as `start` has it for bf16, and for the same reason
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = objective("model", with_labels(make_clip(3), 0, 1, 2))
        assert loss.total.dtype == torch.float32
        loss.total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in objective.parameters())


def test_the_picture_shows_frames_from_first_to_last(make_clip: Any) -> None:
    clip = make_clip(9)
    picture = build().visualize(clip)["input"]
    assert picture.dtype == torch.uint8
    assert picture.shape == (8, 64, 4 * 64 + 3 * 2, 3)
    last = ((clip.video[0, :, -1].permute(1, 2, 0) + 1) * 127.5).round().to(torch.uint8)
    assert torch.equal(picture[0, :, -64:], last)
