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
from fbm_dist.registry import load_encoder
from fbm_dist.registry.folder import read_description
from fbm_dist.run import pretrain
from fbm_dist.schema import Run
from fbm_dist.training.distributed import start
from fbm_dist.training.engines.engine import build_engine
from fbm_dist.training.engines.turn import turn
from fbm_dist.training.monitoring.metrics import read_lines
from fbm_dist.training.optimization.optimizers import build_optimizer
from tests.datasets import write_dataset
from tests.distributed import run_ranks
from tests.runs import make_run

OBJECTIVE: dict[str, Any] = {"family": "coherency", "size": 64, "width": 0.05, "initialization": "he"}
STEPS, RANKS = 2, 2
Weights = dict[str, Tensor]
Seen = list[list[list[Clip]]]  # of each step, each micro-batch: what each rank sees


def build(gather: bool) -> Coherency:
    torch.manual_seed(0)
    return CoherencyConfig.model_validate(OBJECTIVE | {"gather_negatives": gather}).build()


def seen(make_clip: Callable[..., Clip], micro_batches: int) -> Seen:
    return [
        [[make_clip(2, frames=4, seed=100 * s + 10 * m + rank) for rank in range(RANKS)] for m in range(micro_batches)]
        for s in range(STEPS)
    ]


def by_engines(rank: int, runs: list[Run], gather: bool, clips: Seen) -> list[Weights]:
    """The same steps by every engine, from the same weights; what each leaves."""
    found = []
    for run in runs:
        objective = build(gather)
        engine = build_engine(run, objective, "model", start(run.training))
        for step in clips:
            for micro_batch in step:
                with turn(objective, "model"):
                    engine.backward(engine.forward(micro_batch[rank])[0])
            engine.step(run.optimizer.lr)
        found.append(engine.weights())
    return found


def whole(objective: Coherency, clips: list[Clip]) -> Tensor:
    """The mean loss of all ranks with each other's queries as further negatives, in one graph of one process."""
    frames = [objective._normalized(clip.video) for clip in clips]
    total = torch.zeros(())
    for rank, (query, near, far, stranger) in enumerate(frames):
        other = 1 - rank
        d = torch.cat([distances(query, stranger)[:, None], torch.cdist(query, frames[other][0])], dim=1)
        counts = torch.ones_like(d, dtype=torch.bool)
        counts[:, 1:] = clips[rank].film[:, None] != clips[other].film[None, :]
        hinge = over_strangers(ranked(distances(query, far), d, 0.5, squared=False), counts)
        total = total + (distances(query, near) + hinge).mean() / len(clips)
    return total


@pytest.mark.distributed
@pytest.mark.parametrize(("micro_batches", "gather"), [(1, False), (2, True)])
def test_every_zero_stage_equals_plain_torch(micro_batches: int, gather: bool, make_clip: Any, tmp_path: Path) -> None:
    """Stages 0 to 3 and the torch engine on two ranks against both shards in one process, with the authors' rate of biases."""
    engines: list[dict[str, Any]] = [
        {"engine": "torch"},
        *({"engine": "deepspeed", "zero_stage": stage} for stage in range(4)),
    ]
    groups = [{"pattern": "bias$", "lr": 2.0}]
    sections = {"optimizer": {"kind": "sgd", "lr": 0.05, "weight_decay": 0.01, "groups": groups}}
    batch = {"global_batch": 4 * micro_batches, "micro_batch": 2}
    runs = [make_run(tmp_path, training=engine | batch, **sections) for engine in engines]
    clips = seen(make_clip, micro_batches)
    expected = build(gather)
    optimizer = build_optimizer(runs[0].optimizer, expected, "model")
    assert sorted(group["lr"] for group in optimizer.param_groups) == [0.05, 0.1]
    for step in clips:
        optimizer.zero_grad()
        for micro_batch in step:
            if gather:
                loss = whole(expected, micro_batch)
            else:
                loss = torch.stack([expected("model", clip).total for clip in micro_batch]).mean()
            (loss / micro_batches).backward()
        optimizer.step()
    untrained = dict(build(gather).named_parameters())
    ranks = run_ranks(RANKS, by_engines, runs, gather, clips)
    for weights in (weights for rank in ranks for weights in rank):
        assert weights.keys() == untrained.keys()
        for name, value in expected.named_parameters():
            assert not torch.equal(value, untrained[name]), name
            torch.testing.assert_close(weights[name], value, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data"), clips=8, masks=False, truth=False)


def coherency_run(folder: Path, path: Path, steps: int, **sections: Any) -> Run:
    """One process; t, t + 1, t + 9 and a frame of another film."""
    clip = {"size": 64, "mask": False, "mirror": 0.5, "frames": 3, "offsets": [0, 1, 9], "negative": True}
    given: dict[str, Any] = {
        "objective": OBJECTIVE,
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


def test_a_run_goes_on_bit_for_bit_and_is_classified_with_by_name(data: Path, tmp_path: Path) -> None:
    """From shards: two steps, and one that goes on to two. What it shows are tuples of real clips; what it registers can be tuned."""
    at_once, broken = tmp_path / "at_once", tmp_path / "broken"
    address = f"sqlite:///{tmp_path / 'mlflow.db'}"
    tracking = {"mlflow": True, "uri": address, "register_as": "coherency", "experiment": "tests"}
    run = coherency_run(at_once, data, steps=2, tracking=tracking)
    assert pretrain(run).model_uri == "models:/coherency/1"
    pretrain(coherency_run(broken, data, steps=1))
    pretrain(coherency_run(broken, data, steps=2))
    kept, resumed = (load_file(folder / "encoder/encoder.safetensors") for folder in (at_once, broken))
    assert kept.keys() == resumed.keys()
    assert all(torch.equal(value, resumed[name]) for name, value in kept.items())
    lines = [read_lines(folder / "metrics.jsonl") for folder in (at_once, broken)]
    curves = [[(line["loss"], line["far"]) for line in each] for each in lines]
    assert len(curves[0]) == 2
    assert curves[0] == curves[1]
    assert (at_once / "pictures/tuples-00000002.png").is_file()
    description = read_description(at_once)
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
