"""A data set of two tiny films, a network that finds the bright square, and a run of FBM: made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fbm_dist.evaluation.segmentation.config import Segmentation
from fbm_dist.run import pretrain
from fbm_dist.schema import Tracking
from fbm_dist.training.distributed import World
from tests.datasets import write_dataset
from tests.fbm_dist.evaluation.segmentation.drawn import write_film
from tests.runs import make_run

WORLD = World(0, 0, 1, 1, torch.device("cpu"))


class Bright(nn.Module):
    """What is brighter than mid-grey, at a quarter of the side."""

    def forward(self, frame: Tensor) -> Tensor:
        return torch.sigmoid(20 * nn.functional.avg_pool2d(frame.mean(1, keepdim=True), 4))


def export(network: nn.Module, path: Path, shape: tuple[int, ...] = (1, 3, 64, 64)) -> Path:
    torch.export.save(torch.export.export(network.eval(), (torch.zeros(shape),)), path)
    return path


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two films of 6 and 4 frames of 48x64, all annotated."""
    root = tmp_path_factory.mktemp("films") / "tiny"
    write_film(root / "hike", 6)
    write_film(root / "surf", 4)
    return root


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported network."""
    return export(Bright(), tmp_path_factory.mktemp("networks") / "bright.pt2")


@pytest.fixture(scope="session")
def fbm_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of one step, with its checkpoint and its encoder."""
    root = tmp_path_factory.mktemp("fbm")
    data = write_dataset(root / "shards", clips=4, truth=False)
    run = make_run(
        root / "tiny-fbm",
        objective={"family": "fbm", "size": 64, "width": 0.05},
        data={"path": str(data), "clip": {"size": 64}},
        training={"engine": "torch", "steps": 1, "global_batch": 2, "micro_batch": 2, "preflight": "off"},
    )
    pretrain(run)
    return run.run.folder


@pytest.fixture
def evaluation(films: Path, tmp_path: Path) -> Callable[..., Segmentation]:
    """Baselines alone on `films`; keywords change it."""

    def make(**changes: Any) -> Segmentation:
        settings: dict[str, Any] = {
            "data": (films,),
            "unlc": None,
            "device": "cpu",
            "output": tmp_path / "out",
            "tracking": Tracking(mlflow=False),
        }
        return Segmentation(**(settings | changes))

    return make
