"""The family as an objective: each loss recomputed, who learns from what, that it learns, its pictures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fbm_dist.clip import Clip
from fbm_dist.layers.pictures import to_uint8
from fbm_dist.objectives.coherency import objective as module
from fbm_dist.objectives.coherency.config import CoherencyConfig
from fbm_dist.objectives.coherency.objective import Coherency
from tests.fbm_dist.objectives.learning import train

SMALL = {"size": 64, "width": 0.05, "initialization": "he"}
LOSSES = ("siamese", "quadruplet", "sfa", "triplet")
LENGTHS = {"siamese": 3, "quadruplet": 4, "sfa": 3, "triplet": 3}  # frames of a tuple, the stranger's among them


def build(kind: str = "quadruplet", seed: int = 0, loss: dict[str, Any] | None = None, **settings: Any) -> Coherency:
    torch.manual_seed(seed)
    return CoherencyConfig.model_validate(SMALL | {"loss": {"kind": kind} | (loss or {})} | settings).build()


@pytest.fixture
def tuples(make_clip: Any) -> Any:
    """tuples(batch, kind, seed=0): frames of one film for its roles; in place of the last one, another film's where the loss has it."""

    def make(batch: int, kind: str = "quadruplet", seed: int = 0, others: bool = True) -> Clip:
        clip = replace(make_clip(batch, seed=seed, frames=LENGTHS[kind]), mask=None)
        if kind == "sfa":
            return clip
        if not others:
            return replace(clip, video=clip.video[:, :, :-1], frames=clip.frames[:, :-1])
        clip.video[:, :, -1] = make_clip(batch, seed=seed + 100, frames=1).video[:, :, 0]
        return clip

    return make


def expected(objective: Coherency, clip: Clip) -> float:
    """The README's equations, in numpy, from the network's embeddings."""
    loss = objective.config.loss
    with torch.no_grad():
        frames = [
            objective.model.embed(clip.video[:, :, t]).numpy().astype(np.float64) for t in range(clip.video.shape[2])
        ]
    if objective.config.normalize:
        frames = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in frames]
    query = frames[0]
    stranger = frames[-1] if objective.config.negatives == "film" else np.roll(query, -1, axis=0)
    power = 2 if loss.distance == "squared" else 1
    total = []
    for i in range(len(query)):
        d = [float(np.linalg.norm(query[i] - x[i])) for x in (frames[1], frames[2 if len(frames) > 2 else 1], stranger)]
        half = 0.5 if power == 2 else 1.0
        if loss.kind == "siamese":
            total.append(half * d[0] ** power + loss.weight * half * max(0, loss.margin - d[2]) ** power)
        elif loss.kind == "sfa":
            total.append(half * d[0] ** power + loss.weight * half * max(0, loss.margin - d[1]) ** power)
        elif loss.kind == "triplet":
            total.append(max(0, d[0] ** power - d[2] ** power + loss.margin))
        else:
            total.append(d[0] ** power + loss.weight * max(0, d[1] ** power - d[2] ** power + loss.margin))
    return float(np.mean(total))


@pytest.mark.parametrize("distance", ["euclidean", "squared"])
@pytest.mark.parametrize("kind", LOSSES)
def test_each_loss_is_the_papers(kind: str, distance: str, tuples: Any) -> None:
    weight = {} if kind == "triplet" else {"weight": 0.3}
    objective = build(kind, loss={"distance": distance, "margin": 0.45, **weight})
    clip = tuples(4, kind)
    loss = objective("model", clip)
    assert loss.total.item() == pytest.approx(expected(objective, clip), rel=1e-4)
    assert loss.total.item() > 0
    assert not any(term.requires_grad for term in loss.terms.values())


def test_without_length_1(tuples: Any) -> None:
    objective = build(normalize=False)
    clip = tuples(4)
    assert objective("model", clip).total.item() == pytest.approx(expected(objective, clip), rel=1e-4)


def test_the_authors_hinge_is_taken_once(tuples: Any) -> None:
    """Squared distances, alpha once for the batch: (1/N) {sum ||a-c||^2 + [sum ||a-v||^2 - sum ||a-o||^2 + 0.5]_+}."""
    objective = build(loss={"hinge": "batch", "distance": "squared"})
    clip = tuples(3)
    with torch.no_grad():
        a, c, v, o = (
            torch.nn.functional.normalize(objective.model.embed(clip.video[:, :, t]), dim=1).numpy() for t in range(4)
        )
    norm = {name: float(np.linalg.norm(a - x)) ** 2 for name, x in (("c", c), ("v", v), ("o", o))}
    by_hand = (norm["c"] + max(0.0, norm["v"] - norm["o"] + 0.5)) / 3
    loss = objective("model", clip)
    assert loss.total.item() == pytest.approx(by_hand, rel=1e-4)
    assert loss.total.item() != pytest.approx(build(loss={"distance": "squared"})("model", clip).total.item(), rel=1e-2)


@pytest.mark.parametrize("kind", ["siamese", "quadruplet", "triplet"])
def test_more_unsupervised_takes_the_next_clip_whatever_its_film(kind: str, tuples: Any) -> None:
    objective = build(kind, negatives="any")
    clip = tuples(3, kind, others=False)
    found = objective("model", clip).total
    assert found.item() == pytest.approx(expected(objective, clip), rel=1e-4)
    assert torch.equal(found, objective("model", replace(clip, film=torch.zeros_like(clip.film))).total)


def test_more_unsupervised_needs_two_clips(tuples: Any) -> None:
    objective, clip = build(negatives="any"), tuples(1, others=False)
    with pytest.raises(ValueError, match=r"set training.micro_batch to 2 or more"):
        objective("model", clip)
    loss = objective.eval()("model", clip)  # a last batch of validation: the hinge has no tuple
    assert loss.terms["hinge"] == 0
    assert loss.total.item() == pytest.approx(loss.terms["near"].item())


def gradient(objective: Coherency, clip: Clip) -> Tensor:
    """Of the loss, with respect to the frames: (b, t), summed over pixels."""
    video = clip.video.clone().requires_grad_()
    objective("model", replace(clip, video=video)).total.backward()
    assert video.grad is not None
    return video.grad.abs().sum(dim=(1, 3, 4))


@pytest.mark.parametrize("kind", LOSSES)
def test_every_frame_of_a_tuple_teaches_every_layer(kind: str, tuples: Any) -> None:
    """All four networks share their parameters and learn: no frame is a constant."""
    objective = build(kind, loss={"margin": 3.0})
    assert (gradient(objective, tuples(3, kind)) > 0).all()
    assert all(p.grad is not None and p.grad.any() for p in objective.parameters())


def test_a_tuple_in_order_teaches_its_neighbour_alone(tuples: Any) -> None:
    """Where the hinge is 0 the far frame and the stranger get no gradient."""
    objective = build(loss={"margin": 1e-6})
    clip = tuples(3)
    clip.video[:, :, 2] = clip.video[:, :, 0]  # the far frame is the query itself, hence nearer than any stranger
    assert objective("model", clip).terms["active"] == 0
    assert (gradient(objective, clip) > 0).tolist() == [[True, True, False, False]] * 3


def test_equal_frames_give_finite_gradients(tuples: Any) -> None:
    objective, clip = build(), tuples(2)
    clip.video[:] = clip.video[:, :, :1]
    loss = objective("model", clip)
    assert loss.total.item() == pytest.approx(0.5)
    loss.total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in objective.parameters())


def test_the_terms_say_what_happens(tuples: Any) -> None:
    objective, clip = build(), tuples(4)
    terms = objective("model", clip).terms
    assert set(terms) == {"near", "far", "stranger", "hinge", "active", "spread"}
    assert set(build("siamese")("model", tuples(4, "siamese")).terms) == {
        "near",
        "stranger",
        "hinge",
        "active",
        "spread",
    }
    assert set(build("sfa")("model", tuples(4, "sfa")).terms) == {"near", "far", "hinge", "active", "spread"}
    with torch.no_grad():
        query = torch.nn.functional.normalize(objective.model.embed(clip.video[:, :, 0]), dim=1).numpy()
    assert terms["spread"].item() == pytest.approx(np.sqrt(query.var(axis=0).sum()), rel=1e-4)
    clip.video[:] = 0.3
    assert objective("model", clip).terms["spread"].item() == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("kind", LOSSES)
def test_it_overfits_one_batch(kind: str, tuples: Any) -> None:
    """A collapsed network would stay at the margin; measured after 40 steps: 0.007 of it at most."""
    objective = build(kind)
    curve = [step["total"] for step in train(objective, tuples(2, kind), steps=30, lr=1e-3)]
    assert curve[-1] < 0.1 * objective.config.loss.margin, curve[::8]


def test_the_same_seed_gives_the_same_bits(tuples: Any) -> None:
    first, second, other = (build(seed=seed) for seed in (1, 1, 2))
    curves = [train(objective, tuples(2), steps=2, lr=1e-3) for objective in (first, second, other)]
    assert curves[0] == curves[1] != curves[2]
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_the_encoder_stands_alone(tuples: Any) -> None:
    objective = build()
    train(objective, tuples(2), steps=1, lr=1e-3)
    state = {name.removeprefix("model."): value for name, value in objective.state_dict().items()}
    encoder = objective.config.build_encoder()
    encoder.load_state_dict(state)
    clip = tuples(2, seed=3)
    ours, theirs = objective.eval().features(clip), encoder.eval()(clip.video)
    assert list(ours) == ["fc6", "fc6_pre", "fc7", "fc7_pre"]
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert objective.encoder() is objective.model


def test_biases_do_not_decay() -> None:
    objective = build()
    factor = {name: objective.weight_decay(name, p) for name, p in objective.named_parameters()}
    assert {name for name, value in factor.items() if value == 0} == {name for name in factor if name.endswith("bias")}
    assert set(factor.values()) == {0.0, 1.0}


def test_bf16_autocast_keeps_the_loss_in_fp32_and_every_gradient(tuples: Any) -> None:
    clip = tuples(3)
    losses = []
    for enabled in (False, True):
        objective = build()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            loss = objective("model", clip)
        assert loss.total.dtype == torch.float32
        loss.total.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in objective.parameters())
        losses.append(loss.total.item())
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert losses[0] != losses[1]


@pytest.mark.parametrize(
    ("kind", "titles"), [("quadruplet", ["t", "t + 1", "t + 20", "other film"]), ("sfa", ["t", "t + 1", "t + 20"])]
)
def test_the_picture_shows_each_tuple_under_its_distances(
    kind: str, titles: list[str], tuples: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = build(kind).train()
    clip = tuples(10, kind)
    clip.frames[:] = torch.tensor([5, 6, 25, 3][: clip.frames.shape[1]])
    written: list[list[str]] = []
    drawn = module.titled

    def noted(picture: Tensor, names: list[str]) -> Tensor:
        written.append(list(names))
        return drawn(picture, names)

    monkeypatch.setattr(module, "titled", noted)
    picture = objective.visualize(clip)["tuples"]
    assert picture.dtype == torch.uint8
    assert picture.shape[0] == 8
    columns = clip.video.shape[2]
    assert picture.shape[2] == columns * 64 + (columns - 1) * 2
    for column in range(columns):
        left = column * 66
        assert torch.equal(picture[:, -64:, left : left + 64], to_uint8(clip.video[:8, :, column]))
    assert written[-1] == titles
    with torch.no_grad():
        embedded = [
            torch.nn.functional.normalize(objective.model.embed(clip.video[:8, :, t]), dim=1) for t in range(columns)
        ]
    for clip_number, line in enumerate(written[:8]):
        apart = [float((embedded[0] - each)[clip_number].norm()) for each in embedded]
        assert [float(text) for text in line] == pytest.approx(apart, abs=0.0051)
    assert objective.training


def test_a_clip_of_another_length_is_refused(tuples: Any) -> None:
    with pytest.raises(ValueError, match=r"takes 4 frames \(query, neighbour, far, stranger\), and the clip has 3"):
        build()("model", tuples(2, "sfa"))
