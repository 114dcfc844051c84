"""docs/adding-a-family.md, executed: its files are written into a copy of the project, its test runs, and the door trains."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.datasets import write_dataset
from tests.docs.blocks import ROOT, Block, blocks
from tests.docs.stories import checkout, environment

PAGE = "docs/adding-a-family.md"
COPIED = ("fbm_dist", "configs", "docs", "tests", "launch")  # what the page changes; doors import what lies beside them


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with the page's files in it, and its one line changed as the page says."""
    folder = checkout(tmp_path_factory.mktemp("family") / "checkout")
    for name in COPIED:
        (folder / name).unlink(missing_ok=True)
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for block in blocks(ROOT / PAGE):
        title = re.search(r'title="([^"]+)"', block.info)
        if title:
            path = folder / title[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            assert not path.exists(), f"{title[1]} is there already"
            path.write_text(block.text)
        elif block.language == "diff":
            change(folder / "fbm_dist" / "objectives" / "families.py", block)
    return folder


def change(path: Path, block: Block) -> None:
    """Apply the page's diff: each stretch of kept and removed lines stands in the file once."""
    text = path.read_text()
    for part in block.text.split("@@\n"):
        lines = part.splitlines()
        before = "".join(f"{line[1:]}\n" for line in lines if line[:1] in " -")
        after = "".join(f"{line[1:]}\n" for line in lines if line[:1] in " +")
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    path.write_text(text)


def run(project: Path, *command: str, **variables: str) -> str:
    """Run a command of the page in the project; what it wrote."""
    known = environment(project) | {"PYTHONPATH": str(project)} | variables
    done = subprocess.run(
        [sys.executable, *command], cwd=project, env=known, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


@pytest.mark.slow
def test_the_room_s_own_test_passes_and_the_house_s_rules_hold(project: Path) -> None:
    """With the project's own: golden files, layers, what each family takes; it trains on the shards on which all of them do."""
    only = [
        "-k",
        "arrow or layer or imports or golden_file_without or page_says",
        "-p",
        "no:cacheprovider",
        "-n",
        "0",
        "-q",
    ]
    rooms = ["tests/fbm_dist/objectives/arrow", "tests/fbm_dist/objectives/test_families.py"]
    files = ["tests/test_configs.py", "tests/test_layering.py", *rooms]
    run(project, "-m", "pytest", *files, *only, UPDATE_GOLDEN="1")
    assert "arrow" in (project / "tests/golden/configs/pretrain/arrow_cpu.yaml").read_text()
    assert "| `arrow` | [arrow_cpu.yaml]" in (project / "docs/loading.md").read_text()


@pytest.mark.slow
def test_the_door_trains_it_and_an_evaluation_reads_its_features(project: Path) -> None:
    write_dataset(project / "shards", clips=8)
    small = [
        "training.steps=2",
        "training.global_batch=4",
        "training.micro_batch=4",
        "training.engine=torch",
        "training.preflight=off",
        "tracking.mlflow=false",
        "tracking.register_as=null",
    ]
    pretrain = ["launch/pretrain.py", "configs/pretrain/arrow_cpu.yaml", "data.path=shards", "run.folder=runs/arrow"]
    run(project, *pretrain, *small)
    assert (project / "runs/arrow/finished.json").exists()
    evaluate = [
        "launch/evaluate.py",
        "configs/evaluate/probes.yaml",
        "encoder=runs/arrow",
        "compare_with=[random]",
        "data.path=shards",
    ]
    run(project, *evaluate, "label=motion", "folds=2", "seeds=[0]", "tracking.mlflow=false", "output=probes")
    assert "time" in (project / "probes/table.md").read_text()


def test_the_page_s_files_are_formatted(project: Path) -> None:
    written = [str(project / m) for m in re.findall(r'title="([^"]+\.py)"', (ROOT / PAGE).read_text())]
    ruff = Path(sys.executable).parent / "ruff"
    done = subprocess.run(
        [ruff, "check", "--config", ROOT / "pyproject.toml", *written], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
