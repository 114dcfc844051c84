"""What the tests of several machines share: one data set, one reference run by torchrun, and two joined nodes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clusters.nodes import Cluster, cluster, obstacle
from tests.clusters.runs import DOOR, arguments, environment
from tests.datasets import write_dataset


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight clips."""
    return write_dataset(tmp_path_factory.mktemp("shards"), clips=8)


@pytest.fixture(scope="session")
def reference(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the shared run on one machine: two processes, started by torchrun."""
    folder = tmp_path_factory.mktemp("reference")
    command = ["torchrun", "--standalone", "--nproc-per-node", "2", DOOR, *arguments(shards, folder / "run")]
    ended = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=200, check=False
    )
    assert ended.returncode == 0, (ended.stdout + ended.stderr)[-4000:]
    return folder / "run"


@pytest.fixture
def two_nodes(tmp_path: Path) -> Iterator[Cluster]:
    """Two machines that share this test's folder; gone afterwards."""
    reason = obstacle("pdsh")
    if reason:
        pytest.skip(reason)
    folder = tmp_path / "cluster"
    folder.mkdir()
    with cluster(folder) as made:
        yield made
