"""Every config of the repository loads, opens with what it costs and how to run it, and resolves to its golden file."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest
from pydantic import BaseModel

from data_tools.config import Schema, dump, load
from data_tools.schema import Prepare
from fbm_dist.evaluation.protocols import schema_of
from fbm_dist.schema import Run
from fbm_dist.sweeps.config import Sweep

ROOT = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "golden" / "configs"
# What the user gives on the command line.
GIVEN: dict[str, tuple[Schema[BaseModel], list[str]]] = {
    "prepare": (Prepare, ["input=films", "output=shards"]),
    "pretrain": (Run, ["data.path=shards", "run.folder=runs/x"]),
    "evaluate": (schema_of, []),
    "sweep": (Sweep, ["data.path=shards"]),
}
CONFIGS = sorted(p for kind in GIVEN for p in (ROOT / "configs" / kind).glob("*.yaml"))


def resolve(path: Path) -> str:
    schema, given = GIVEN[path.parent.name]
    return dump(load(schema, path, given or command_line(path)))


def command_line(path: Path) -> list[str]:
    """What the file's own command gives it."""
    command = next(line for line in path.read_text().splitlines() if line.startswith("# Command: "))
    return [word for word in shlex.split(command) if re.match(r"[a-z_.]+=", word)]


def test_there_are_configs_of_every_kind() -> None:
    assert {p.parent.name for p in CONFIGS} == set(GIVEN)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_resolves_to_its_golden_file(path: Path) -> None:
    """A changed default shows up here, and in the review. `UPDATE_GOLDEN=1 make test` writes the files anew."""
    golden = GOLDEN / path.parent.name / path.name
    resolved = resolve(path)
    if os.environ.get("UPDATE_GOLDEN"):
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(resolved)
    assert golden.exists(), f"{golden} is missing: UPDATE_GOLDEN=1 make test"
    assert resolved == golden.read_text()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_opens_with_paper_cost_expectation_and_command(path: Path) -> None:
    header = []
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            break
        header.append(line)
    text = "\n".join(header)
    for word in ("# paper:", "# cost:", "# expect:", "# command:"):
        assert word in text.lower(), f"{path.name} does not say {word!r}"
    assert str(path.relative_to(ROOT)) in text, "the command names this file"


def test_no_golden_file_without_a_config() -> None:
    known = {p.relative_to(ROOT / "configs") for p in CONFIGS}
    assert {p.relative_to(GOLDEN) for p in GOLDEN.rglob("*.yaml")} == known
