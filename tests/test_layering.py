"""Imports follow the data: raw video -> shards -> loader -> objective -> trainer -> registry -> evaluation -> doors."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# A module may import what stands above it in this list, and its own layer. The longest prefix decides.
LAYERS = (
    ("data_tools",),
    ("fbm_dist.config", "fbm_dist.schema", "fbm_dist.clip", "fbm_dist.objectives.families"),
    ("fbm_dist.layers", "fbm_dist.objectives", "fbm_dist.data"),
    ("fbm_dist.training",),
    ("fbm_dist.inference", "fbm_dist.registry"),
    ("fbm_dist.evaluation",),
    ("fbm_dist.record",),
    ("fbm_dist.run", "fbm_dist.door"),
    ("fbm_dist.sweeps",),
    ("launch",),
)
# Every part of fbm_dist but the sweeps.
RAYLESS = (
    *sorted(
        f"fbm_dist.{path.stem}"
        for path in (ROOT / "fbm_dist").iterdir()
        if path.stem not in ("sweeps", "__init__") and (path.suffix == ".py" or (path / "__init__.py").exists())
    ),
    "fbm_dist.sweeps.config",  # --help and checks of configs are quick
    "fbm_dist.sweeps.trial",  # what a node runs
    "fbm_dist.sweeps.report",
    "launch",
)
# What a layer must not know, whatever the order says: (importer, imported, why).
FORBIDDEN = (
    ("data_tools", "fbm_dist", "data tools know no training"),
    ("data_tools", "deepspeed", "data tools know no training"),
    ("data_tools", "mlflow", "data tools know no training"),
    ("data_tools", "ray.tune", "data tools know no training"),
    ("data_tools", "torch.optim", "data tools know no training"),
    ("fbm_dist.data", "fbm_dist.objectives", "the loader knows no model"),
    ("fbm_dist.objectives", "fbm_dist.data", "models know no files"),
    ("fbm_dist.objectives", "fbm_dist.training", "the objective says what is minimised; the trainer does it"),
    ("fbm_dist.objectives", "deepspeed", "the objective says what is minimised; the trainer does it"),
    ("fbm_dist.layers", "fbm_dist.objectives", "a block knows no family"),
    ("fbm_dist.training.trainer", "mlflow", "tracking.py alone talks to MLflow"),
    ("fbm_dist.inference", "mlflow", "a pulled encoder needs no registry"),
    ("fbm_dist.inference", "pydantic", "a pulled program needs torch alone"),
    *((part, "ray", "a run knows nothing of the sweep that it is a trial of") for part in RAYLESS),
)
TYPE_FAMILIES = "fbm_dist.objectives.families"  # config unions: torch-free values that every layer may name


def modules() -> dict[str, Path]:
    found = {}
    for top in ("data_tools", "fbm_dist", "launch"):
        for path in (ROOT / top).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path) -> set[str]:
    """Every module that a file names in an import, at top level or inside a function."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            raise AssertionError(f"{path}: relative import; write the whole name")
    return names


def within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def layer(name: str) -> int | None:
    matches = [(len(p), i) for i, prefixes in enumerate(LAYERS) for p in prefixes if within(name, p)]
    return max(matches)[1] if matches else None


def violations(name: str, imported: set[str]) -> list[str]:
    """What is wrong with a module called `name` importing `imported`."""
    found = []
    own = layer(name)
    for other in sorted(imported):
        for importer, banned, why in FORBIDDEN:
            if within(name, importer) and within(other, banned):
                found.append(f"{name} imports {other}: {why}")
        theirs = layer(other)
        if own is not None and theirs is not None and theirs > own and not within(other, TYPE_FAMILIES):
            config_union = name == TYPE_FAMILIES and other.split(".")[-2] == "config"
            if not config_union and not (name == "fbm_dist.schema" and ".config." in other):
                found.append(f"{name} imports {other}, which stands downstream of it")
        rooms = [n.split(".")[2] for n in (name, other) if within(n, "fbm_dist.objectives") and n.count(".") >= 2]
        if (
            len(rooms) == 2
            and len(name.split(".")) > 3
            and rooms[1] not in (rooms[0], "objective", "family", "families")
        ):
            found.append(f"{name} imports {other}: the rooms of the families do not know each other")
        if within(name, "fbm_dist.training") and within(other, "fbm_dist.objectives"):
            if not within(other, "fbm_dist.objectives.objective"):
                found.append(f"{name} imports {other}: the trainer knows no model")
    return found


def test_every_module_has_a_layer() -> None:
    assert len(modules()) > 20
    missing = [n for n in modules() if layer(n) is None and n != "fbm_dist"]
    assert not missing, f"add to LAYERS: {missing}"


def test_imports_follow_the_data() -> None:
    found = [v for name, path in modules().items() for v in violations(name, imports(path))]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("name", "imported"),
    [
        ("data_tools.building.pipeline", "fbm_dist.clip"),
        ("data_tools.unlc.graph", "torch.optim"),
        ("fbm_dist.objectives.fbm.objective", "fbm_dist.objectives.classifier.objective"),
        ("fbm_dist.training.trainer", "fbm_dist.objectives.fbm.objective"),
        ("fbm_dist.training.trainer", "mlflow"),
        ("fbm_dist.data.loader", "fbm_dist.training.trainer"),
        ("fbm_dist.training.trainer", "fbm_dist.registry"),
        ("fbm_dist.run", "ray.tune"),
        ("fbm_dist.training.trainer", "ray"),
        ("fbm_dist.run", "fbm_dist.sweeps.conduct"),
        ("fbm_dist.sweeps.trial.worker", "ray"),
    ],
)
def test_a_violation_is_seen(name: str, imported: str) -> None:
    assert violations(name, {imported})


@pytest.mark.parametrize(
    "statement",
    [
        "import fbm_dist.schema",
        "import data_tools.__main__",
        "import data_tools.sample",
        "import fbm_dist.data.order.plan",
        "import fbm_dist.registry.__main__",
        "import fbm_dist.sweeps.config",
    ],
)
def test_configs_and_doors_import_no_torch(statement: str) -> None:
    probe = f"{statement}; import sys; print(sorted({{'torch', 'mlflow', 'deepspeed', 'sklearn', 'ray'}} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=ROOT, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "door",
    [
        ["launch/pretrain.py"],
        ["launch/evaluate.py"],
        ["-m", "fbm_dist.registry"],
        ["launch/sweep.py"],
        ["-m", "data_tools"],
        ["-m", "data_tools", "prepare"],
    ],
)
def test_help_loads_no_heavy_library(door: list[str]) -> None:
    command = [sys.executable, "-X", "importtime", *door, "--help"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert "usage" in result.stdout.lower()
    loaded = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines() if line.startswith("import time")}
    assert not loaded & {"torch", "mlflow", "deepspeed", "ray", "sklearn", "skimage", "cv2"}
