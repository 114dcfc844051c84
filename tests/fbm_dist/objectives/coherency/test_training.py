"""The family under the trainer: every ZeRO stage is plain torch, a run goes on bit for bit, its encoder goes by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from fbm_dist.clip import Clip
from fbm_dist.objectives.coherency.config import CoherencyConfig
from fbm_dist.objectives.coherency.losses import distances, over_strangers, ranked
from fbm_dist.objectives.coherency.objective import Coherency
from fbm_dist.objectives.objective import Objective
from fbm_dist.registry import load_encoder
from fbm_dist.registry.folder import read_description
from fbm_dist.run import pretrain
from fbm_dist.schema import Run
from fbm_dist.training.optimization.optimizers import build_optimizer
from tests.datasets import write_dataset
from tests.equality import engines_agree, goes_on
from tests.runs import make_run

OBJECTIVE: dict[str, Any] = {"family": "coherency", "size": 64, "width": 0.05, "initialization": "he"}
STEPS, RANKS = 2, 2
Seen = list[list[list[Clip]]]  # of each step, each micro-batch: what each rank sees


def build(gather: bool) -> Coherency:
    torch.manual_seed(0)
    return CoherencyConfig.model_validate(OBJECTIVE | {"gather_negatives": gather}).build()


def seen(make_clip: Callable[..., Clip], micro_batches: int) -> Seen:
    return [
        [[make_clip(2, frames=4, seed=100 * s + 10 * m + rank) for rank in range(RANKS)] for m in range(micro_batches)]
        for s in range(STEPS)
    ]


def whole_loss(objective: Objective, player: str, clips: list[Clip]) -> list[Tensor]:
    """Each rank's loss with the other's queries as further negatives, in one graph of one process."""
    assert isinstance(objective, Coherency)
    frames = [objective._normalized(clip.video) for clip in clips]
    losses = []
    for rank, (query, near, far, stranger) in enumerate(frames):
        other = 1 - rank
        d = torch.cat([distances(query, stranger)[:, None], torch.cdist(query, frames[other][0])], dim=1)
        counts = torch.ones_like(d, dtype=torch.bool)
        counts[:, 1:] = clips[rank].film[:, None] != clips[other].film[None, :]
        hinge = over_strangers(ranked(distances(query, far), d, 0.5, squared=False), counts)
        losses.append((distances(query, near) + hinge).mean())
    return losses


@pytest.mark.distributed
@pytest.mark.parametrize("gather", [False, True])
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_every_zero_stage_equals_plain_torch(micro_batches: int, gather: bool, make_clip: Any, tmp_path: Path) -> None:
    """With the authors' rate of biases."""
    optimizer = {"kind": "sgd", "lr": 0.05, "weight_decay": 0.01, "groups": [{"pattern": "bias$", "lr": 2.0}]}
    groups = build_optimizer(make_run(tmp_path, optimizer=optimizer).optimizer, build(gather), "model").param_groups
    assert sorted(group["lr"] for group in groups) == [0.05, 0.1]
    loss = whole_loss if gather else None
    engines_agree(tmp_path, lambda: build(gather), seen(make_clip, micro_batches), whole=loss, optimizer=optimizer)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data"), clips=8, masks=False, truth=False)


def coherency_run(folder: Path, path: Path, steps: int, negatives: str = "film", **sections: Any) -> Run:
    """One process; t, t + 1, t + 9, and with negatives=film a frame of another film."""
    clip = {
        "size": 64,
        "mask": False,
        "mirror": 0.5,
        "frames": 3,
        "offsets": [0, 1, 9],
        "negative": negatives == "film",
    }
    given: dict[str, Any] = {
        "objective": OBJECTIVE | {"negatives": negatives},
        "data": {"path": str(path), "clip": clip, "decode": "pyav", "workers": 1},
        "training": {
            "engine": "torch",
            "steps": steps,
            "global_batch": 4,
            "micro_batch": 4,
            "checkpoint_every": 1,
            "picture_every": steps,
            "preflight": "off",
        },
    }
    return make_run(folder, **given | sections)


@pytest.mark.parametrize("negatives", ["film", "any"])
def test_a_run_goes_on_bit_for_bit(negatives: str, data: Path, tmp_path: Path) -> None:
    """From shards, also with all films joined (any); what it shows are tuples of real clips."""
    terms = ["loss", "far", "stranger"]
    whole = goes_on(tmp_path, lambda folder, steps: coherency_run(folder, data, steps, negatives), terms)
    assert (whole / "pictures/tuples-00000002.png").is_file()


def test_its_encoder_is_loaded_and_classified_with_by_name(data: Path, tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'mlflow.db'}"
    tracking = {"mlflow": True, "uri": address, "register_as": "coherency", "experiment": "tests"}
    run = coherency_run(tmp_path / "registered", data, steps=1, tracking=tracking)
    assert pretrain(run).model_uri == "models:/coherency/1"
    kept = load_file(tmp_path / "registered/encoder/encoder.safetensors")
    description = read_description(tmp_path / "registered")
    assert description.objective == run.objective
    assert list(description.features) == ["fc6", "fc6_pre", "fc7", "fc7_pre"]
    encoder = load_encoder("models:/coherency@champion", tracking_uri=address)
    assert all(torch.equal(value, kept[name]) for name, value in encoder.state_dict().items())
    head = {"family": "classifier", "trunk": run.objective.model_dump(), "label": "motion", "frozen": True}
    clip = {"size": 64, "mask": False, "frames": 1}
    reading = {"path": str(data), "clip": clip, "decode": "pyav", "workers": 1}
    start_from = {"init_from": "models:/coherency@champion", "tracking": {"uri": address}}
    pretrain(coherency_run(tmp_path / "tuned", data, 1, objective=head, data=reading, **start_from))
    after = load_file(tmp_path / "tuned/encoder/encoder.safetensors")
    assert all(torch.equal(value, after[name]) for name, value in kept.items()), "a frozen trunk stays what it was"


def test_a_run_that_does_not_fit_ends_before_it_begins(data: Path, tmp_path: Path) -> None:
    run = coherency_run(tmp_path / "run", data, steps=1, objective=OBJECTIVE | {"loss": {"kind": "siamese"}})
    with pytest.raises(ValueError, match=r"set data.clip.frames=2 data.clip.offsets=\[0, 1\] data.clip.negative=true"):
        pretrain(run)
    assert not (tmp_path / "run/metrics.jsonl").exists()
