"""The families of this room under the trainer: every ZeRO stage is plain torch, a run goes on bit for bit, its encoder goes by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fbm_dist.clip import Clip
from fbm_dist.objectives.families import Pretraining
from fbm_dist.objectives.fbm.config import AutoencoderConfig, FBMConfig
from fbm_dist.objectives.objective import Objective
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

FAMILIES: dict[str, Pretraining] = {
    "fbm": FBMConfig(size=64, width=0.05),
    "autoencoder": AutoencoderConfig(size=64, width=0.05),
}
STEPS = 2
RANKS = 2
Weights = dict[str, torch.Tensor]


def build(family: str) -> Objective:
    torch.manual_seed(0)
    return FAMILIES[family].build()


def clips(make_clip: Callable[..., Clip]) -> list[list[Clip]]:
    """Of each step, what each rank sees."""
    return [[make_clip(2, seed=step * RANKS + rank) for rank in range(RANKS)] for step in range(STEPS)]


def by_engines(rank: int, runs: list[Run], family: str, seen: list[list[Clip]]) -> list[Weights]:
    """The same steps by every engine, from the same weights; what each leaves."""
    found = []
    for run in runs:
        objective = build(family)
        engine = build_engine(run, objective, "model", start(run.training))
        for step in seen:
            with turn(objective, "model"):
                engine.backward(engine.forward(step[rank])[0])
            engine.step(run.optimizer.lr)
        found.append(engine.weights())
    return found


@pytest.mark.distributed
@pytest.mark.parametrize("family", FAMILIES)
def test_every_zero_stage_equals_plain_torch(family: str, make_clip: Any, tmp_path: Path) -> None:
    """Stages 0 to 3 and the torch engine on two ranks, weight decay by parameter included, against both shards in one process."""
    engines = [{"engine": "torch"}, *({"engine": "deepspeed", "zero_stage": stage} for stage in range(4))]
    sections = {"optimizer": {"kind": "sgd", "lr": 0.05, "weight_decay": 0.01}}
    runs = [
        make_run(tmp_path, training={**engine, "global_batch": 4, "micro_batch": 2}, **sections) for engine in engines
    ]
    seen = clips(make_clip)
    expected = build(family)
    optimizer = build_optimizer(runs[0].optimizer, expected, "model")
    for step in seen:
        optimizer.zero_grad()
        for clip in step:
            (expected("model", clip).total / RANKS).backward()
        optimizer.step()
    untrained = dict(build(family).named_parameters())
    ranks = run_ranks(RANKS, by_engines, runs, family, seen)
    for weights in (weights for rank in ranks for weights in rank):
        assert weights.keys() == untrained.keys()
        for name, value in expected.named_parameters():
            assert not torch.equal(value, untrained[name]), name
            torch.testing.assert_close(weights[name], value, rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data"), clips=8, masks=False)


def autoencoder_run(folder: Path, data: Path, steps: int, **sections: Any) -> Run:
    """One process, clips without masks."""
    given: dict[str, Any] = {
        "objective": {"family": "autoencoder", "size": 64, "width": 0.05},
        "data": {"path": str(data), "clip": {"size": 64, "mask": False, "mirror": 0.5, "reverse": 0.5}},
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


def test_an_autoencoder_goes_on_bit_for_bit(data: Path, tmp_path: Path) -> None:
    """From shards without masks: two steps, and one that goes on to two."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    pretrain(autoencoder_run(whole, data, steps=2))
    pretrain(autoencoder_run(broken, data, steps=1))
    pretrain(autoencoder_run(broken, data, steps=2))
    kept, resumed = (load_file(folder / "encoder/encoder.safetensors") for folder in (whole, broken))
    assert kept.keys() == resumed.keys()
    assert all(torch.equal(value, resumed[name]) for name, value in kept.items())
    curves = [[line["rec_clip"] for line in read_lines(folder / "metrics.jsonl")] for folder in (whole, broken)]
    assert len(curves[0]) == 2
    assert curves[0] == curves[1]
    assert (whole / "pictures/reconstruction-00000002.png").is_file()


def test_an_autoencoder_is_registered_loaded_by_name_and_fine_tuned(data: Path, tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'mlflow.db'}"
    tracking = {"mlflow": True, "uri": address, "register_as": "autoencoder", "experiment": "tests"}
    summary = pretrain(autoencoder_run(tmp_path / "run", data, steps=1, tracking=tracking))
    assert summary.model_uri == "models:/autoencoder/1"
    described = read_description(tmp_path / "run").objective
    assert described == FAMILIES["autoencoder"]
    encoder = load_encoder("models:/autoencoder@champion", tracking_uri=address)
    kept = load_file(tmp_path / "run/encoder/encoder.safetensors")
    assert all(torch.equal(value, kept[name]) for name, value in encoder.state_dict().items())
    head = {"family": "classifier", "trunk": described.model_dump(), "label": "motion", "frozen": True}
    tuned = autoencoder_run(
        tmp_path / "tuned", data, 1, objective=head, init_from="models:/autoencoder@champion", tracking={"uri": address}
    )
    pretrain(tuned)
    assert read_description(tmp_path / "tuned").objective == described
    after = load_file(tmp_path / "tuned/encoder/encoder.safetensors")
    assert all(torch.equal(value, after[name]) for name, value in kept.items()), "a frozen trunk stays what it was"
