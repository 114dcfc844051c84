"""The families of this room under the trainer: every ZeRO stage is plain torch, runs go on bit for bit, an LSTM follows a DrNet."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fbm_dist.objectives.drnet.config import DrNetAutoencoderConfig, DrNetConfig, DrNetPredictionConfig
from fbm_dist.objectives.families import Pretraining
from fbm_dist.objectives.objective import Objective
from fbm_dist.registry import load_encoder
from fbm_dist.registry.folder import read_description, read_encoder
from fbm_dist.run import pretrain
from fbm_dist.schema import Run
from fbm_dist.training.monitoring.metrics import read_lines
from tests.datasets import write_dataset
from tests.equality import engines_agree, goes_on
from tests.runs import make_run

TINY: dict[str, Any] = {"width": 0.05, "content_dim": 8, "pose_dim": 3}
TRUNK = DrNetConfig(**TINY, beta=0.5, skips=True)
BASELINE = DrNetAutoencoderConfig(**TINY)
FAMILIES: dict[str, Pretraining] = {
    "drnet": TRUNK,
    "drnet_autoencoder": BASELINE,
    "drnet_prediction": DrNetPredictionConfig(frames=4, n_past=2, hidden=8, trunk=TRUNK),
    "drnet_prediction over drnet_autoencoder": DrNetPredictionConfig(frames=4, n_past=2, hidden=8, trunk=BASELINE),
}
STEPS = 2
RANKS = 2
CLIP: dict[str, Any] = {"size": 64, "mask": False, "frames": 4, "within": 12}


def build(family: str) -> Objective:
    """A frozen trunk counts as trained."""
    torch.manual_seed(0)
    objective = FAMILIES[family].build()
    if family.startswith("drnet_prediction"):
        with torch.no_grad():
            for name, value in objective.model.state_dict().items():  # type: ignore[union-attr]
                value.add_(1) if name.endswith("num_batches_tracked") else value.mul_(1.01)
    return objective


def before_norm(name: str) -> bool:
    """A convolution's bias that the BatchNorm after it takes away again."""
    return re.search(r"(stages\.\d|code|first|ups\.[0-2])\.0\.bias$", name) is not None


@pytest.mark.distributed
@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_zero_stage_equals_plain_torch(family: str, micro_batches: int, make_clip: Any, tmp_path: Path) -> None:
    steps = [
        [
            [make_clip(3, seed=100 * step + 10 * rank + m, frames=4) for rank in range(RANKS)]
            for m in range(micro_batches)
        ]
        for step in range(STEPS)
    ]
    frozen = {name for name, p in build(family).named_parameters() if not p.requires_grad}
    assert bool(frozen) is family.startswith("drnet_prediction")
    optimizer = {"kind": "sgd", "lr": 1.0, "weight_decay": 0.0005}
    engines_agree(tmp_path, lambda: build(family), steps, frozen=frozen, idle=before_norm, optimizer=optimizer)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data"), clips=8, masks=False)


def run_of(folder: Path, path: Path, steps: int, **sections: Any) -> Run:
    """One process, a DrNet unless `sections` say otherwise."""
    given: dict[str, Any] = {
        "objective": TRUNK.model_dump(),
        "data": {"path": str(path), "clip": CLIP},
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


def prediction(data: Path, source: Path) -> dict[str, Any]:
    clip = {"size": 64, "mask": False, "frames": 4, "stride": 3}
    return {
        "objective": FAMILIES["drnet_prediction"].model_dump(),
        "data": {"path": str(data), "clip": clip},
        "init_from": str(source),
    }


def test_a_game_goes_on_bit_for_bit(data: Path, tmp_path: Path) -> None:
    names = ("critic/scene", "critic/accuracy", "model/reconstruction", "model/similarity", "model/adversarial")
    whole = goes_on(tmp_path, lambda folder, steps: run_of(folder, data, steps), names)
    for picture in ("swap", "reconstruction", "interpolation"):
        assert (whole / f"pictures/{picture}-00000002.png").is_file()


def test_an_lstm_follows_a_drnet(data: Path, tmp_path: Path) -> None:
    """From a DrNet's run by its folder; what is frozen survives checkpoints, a resume and the registry unchanged."""
    trained = tmp_path / "drnet"
    pretrain(run_of(trained, data, steps=1))
    source = {f"trunk.{name}": v for name, v in load_file(trained / "encoder/encoder.safetensors").items()}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    address = f"sqlite:///{tmp_path / 'mlflow.db'}"
    tracking = {"mlflow": True, "uri": address, "register_as": "prediction", "experiment": "tests"}
    sections = prediction(data, trained)
    pretrain(run_of(whole, data, steps=2, **sections, tracking=tracking))
    pretrain(run_of(broken, data, steps=1, **sections))
    (trained / "encoder").rename(tmp_path / "away")  # a resume asks its checkpoint alone
    (trained / "checkpoints").rename(tmp_path / "gone")
    pretrain(run_of(broken, data, steps=2, **sections))
    kept, resumed = (load_file(folder / "encoder/encoder.safetensors") for folder in (whole, broken))
    assert kept.keys() == resumed.keys()
    assert all(torch.equal(value, resumed[name]) for name, value in kept.items())
    assert all(torch.equal(kept[name], value) for name, value in source.items()), "frozen: as the DrNet's run left it"
    curves = [[line["pose"] for line in read_lines(folder / "metrics.jsonl")] for folder in (whole, broken)]
    assert curves[0] == curves[1]
    assert curves[0][0] != curves[0][1]
    assert (whole / "pictures/prediction-00000002.png").is_file()
    assert read_description(whole).features == {"content": 8, "pose": 12, "motion": 8}
    encoder = load_encoder("models:/prediction@champion", tracking_uri=address)
    video = torch.rand(2, 3, 4, 64, 64) * 2 - 1
    ours = read_encoder(broken)(video)
    assert all(torch.equal(value, ours[name]) for name, value in encoder(video).items())


def test_an_lstm_over_fresh_weights_is_refused(data: Path, tmp_path: Path) -> None:
    sections = prediction(data, tmp_path) | {"init_from": None}
    with pytest.raises(ValueError, match=r"the frozen DrNet has never been trained: .* give init_from"):
        pretrain(run_of(tmp_path / "run", data, steps=1, **sections))
