"""One embedding of the tiny data set, made once; and what makes another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fbm_dist.evaluation import evaluate
from fbm_dist.evaluation.embedding.config import Clusters, Embedding, Map, Page
from fbm_dist.evaluation.report.results import Results
from fbm_dist.schema import Data, Tracking


def settings(shards: Path, encoder: Path, output: Path) -> dict[str, Any]:
    """An embedding that takes seconds: 24 clips, files of 5."""
    return {
        "encoder": str(encoder),
        "data": Data(path=shards, decode="pyav", workers=1),
        "batch": 2,
        "part_clips": 5,
        "clusters": Clusters(number=3),
        "page": Page(central=2, random=2, queries=3, neighbours=4, height=48),
        "map": Map(clips=20, method="pca"),
        "device": "cpu",
        "output": output,
        "tracking": Tracking(mlflow=False),
    }


@pytest.fixture
def embedding(shards: Path, encoder: Path, tmp_path: Path) -> Callable[..., Embedding]:
    """Keywords change it."""
    return lambda **changes: Embedding(**(settings(shards, encoder, tmp_path / "out") | changes))


@pytest.fixture(scope="session")
def embedded(shards: Path, encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Embedding, Results]:
    """The evaluation and its results; its output folder is not to be changed."""
    wanted = Embedding(**settings(shards, encoder, tmp_path_factory.mktemp("embedding") / "out"))
    return wanted, evaluate(wanted)
