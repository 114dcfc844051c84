"""A tiny data set, a tiny encoder and a database: made once, used by every test of this folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fbm_dist import registry
from fbm_dist.evaluation.action_recognition.config import ActionRecognition, FineTuning
from fbm_dist.objectives.fbm.config import FBMConfig
from fbm_dist.schema import ClipSpec, Data, Optimizer, Tracking
from tests.datasets import write_dataset

CONFIG = FBMConfig(size=64, width=0.05)


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 clips of 12 films by 3 persons; labels motion (2 classes) and object."""
    return write_dataset(
        tmp_path_factory.mktemp("evaluation") / "shards", clips=24, frames=18, truth=False, masks=False
    )


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> Path:
    """An encoder folder that says that it was pretrained on all of `shards`."""
    folder = tmp_path_factory.mktemp("run") / "encoder"
    spec = ClipSpec(size=64, mask=False)
    data = Data(path=shards, clip=spec)
    info = {"run": "tiny", "data": data.model_dump(mode="json")}
    registry.save_encoder(registry.fresh_encoder(CONFIG, seed=7), CONFIG, spec, folder, info)
    return folder


@pytest.fixture(scope="session")
def registered(tmp_path_factory: pytest.TempPathFactory, encoder: Path) -> str:
    """Address of a database that has `encoder` as fbm-encoder, version 1."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"
    registry.register("fbm-encoder", encoder, tracking_uri=uri)
    return uri


@pytest.fixture
def evaluation(shards: Path, encoder: Path, tmp_path: Path) -> Callable[..., ActionRecognition]:
    """An evaluation that takes seconds; keywords change it."""

    def make(**changes: Any) -> ActionRecognition:
        settings: dict[str, Any] = {
            "encoder": str(encoder),
            "data": Data(path=shards),
            "label": "motion",
            "test_groups": ("person-2",),
            "fine_tuning": FineTuning(
                steps=4, looks=2, global_batch=4, micro_batch=4, mirror=0.0, optimizer=Optimizer(lr=1e-3)
            ),
            "device": "cpu",
            "output": tmp_path / "out",
            "tracking": Tracking(mlflow=False),
        }
        return ActionRecognition(**(settings | changes))

    return make
