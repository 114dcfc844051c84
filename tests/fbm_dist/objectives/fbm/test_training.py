"""The families of this room under the trainer: every ZeRO stage is plain torch, a run goes on bit for bit, its encoder goes by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fbm_dist.objectives.families import Pretraining
from fbm_dist.objectives.fbm.config import AutoencoderConfig, Coherency, FBMConfig
from fbm_dist.objectives.objective import Objective
from fbm_dist.registry import load_encoder
from fbm_dist.registry.folder import read_description
from fbm_dist.run import pretrain
from fbm_dist.schema import Run
from fbm_dist.training.monitoring.metrics import read_lines
from tests.datasets import write_dataset
from tests.equality import engines_agree, goes_on
from tests.runs import make_run

FAMILIES: dict[str, Pretraining] = {
    "fbm": FBMConfig(size=64, width=0.05),
    "fbm with coherency": FBMConfig(size=64, width=0.05, coherency=Coherency(weight=0.5, margin=2.0)),  # always active
    "autoencoder": AutoencoderConfig(size=64, width=0.05),
}
STEPS = 2
RANKS = 2


def build(family: str) -> Objective:
    torch.manual_seed(0)
    return FAMILIES[family].build()


@pytest.mark.distributed
@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_zero_stage_equals_plain_torch(family: str, micro_batches: int, make_clip: Any, tmp_path: Path) -> None:
    """Weight decay by parameter included."""
    steps = [
        [[make_clip(2, seed=100 * step + 10 * m + rank) for rank in range(RANKS)] for m in range(micro_batches)]
        for step in range(STEPS)
    ]
    coherency = build(family)("model", steps[0][0][0]).terms.get("coherency")
    assert coherency is None or coherency > 0
    optimizer = {"kind": "sgd", "lr": 0.5, "weight_decay": 0.002}
    engines_agree(tmp_path, lambda: build(family), steps, optimizer=optimizer)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data"), clips=8, masks=False)


def run_of(folder: Path, path: Path, steps: int, **sections: Any) -> Run:
    """One process; an autoencoder on clips without masks, unless `sections` say otherwise."""
    given: dict[str, Any] = {
        "objective": {"family": "autoencoder", "size": 64, "width": 0.05},
        "data": {"path": str(path), "clip": {"size": 64, "mask": False, "mirror": 0.5, "reverse": 0.5}},
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
    whole = goes_on(tmp_path, lambda folder, steps: run_of(folder, data, steps), ["rec_clip"])
    assert (whole / "pictures/reconstruction-00000002.png").is_file()


def test_fbm_with_its_coherency_term_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """One player, whole kernels, the last frame; clips with masks."""
    data = write_dataset(tmp_path / "data", clips=8)
    objective = FAMILIES["fbm with coherency"].model_dump(mode="json")
    reading = {"path": str(data), "clip": {"size": 64, "mirror": 0.5, "reverse": 0.5}}
    terms = ["loss", "rec_last_foreground", "feature", "coherency"]
    whole = goes_on(
        tmp_path, lambda folder, steps: run_of(folder, data, steps, objective=objective, data=reading), terms
    )
    assert all(line["coherency"] > 0 for line in read_lines(whole / "metrics.jsonl"))
    assert (whole / "pictures/reconstruction-00000002.png").is_file()


def test_an_autoencoder_is_registered_loaded_by_name_and_fine_tuned(data: Path, tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'mlflow.db'}"
    tracking = {"mlflow": True, "uri": address, "register_as": "autoencoder", "experiment": "tests"}
    summary = pretrain(run_of(tmp_path / "run", data, steps=1, tracking=tracking))
    assert summary.model_uri == "models:/autoencoder/1"
    described = read_description(tmp_path / "run").objective
    assert described == FAMILIES["autoencoder"]
    encoder = load_encoder("models:/autoencoder@champion", tracking_uri=address)
    kept = load_file(tmp_path / "run/encoder/encoder.safetensors")
    assert all(torch.equal(value, kept[name]) for name, value in encoder.state_dict().items())
    head = {"family": "classifier", "trunk": described.model_dump(), "label": "motion", "frozen": True}
    tuned = run_of(
        tmp_path / "tuned", data, 1, objective=head, init_from="models:/autoencoder@champion", tracking={"uri": address}
    )
    pretrain(tuned)
    assert read_description(tmp_path / "tuned").objective == described
    after = load_file(tmp_path / "tuned/encoder/encoder.safetensors")
    assert all(torch.equal(value, after[name]) for name, value in kept.items()), "a frozen trunk stays what it was"
