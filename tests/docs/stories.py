"""A page as a story: its unmarked blocks run in order, in a checkout of their own, on data that is small enough for a test."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.docs.blocks import ROOT, blocks

TIMEOUT = 840  # seconds, of a page on a busy machine
IN_A_CHECKOUT = (
    *("benchmarks", "configs", "data_tools", "docs", "fbm_dist", "infra", "launch"),
    *("Makefile", "constraints.txt", "pyproject.toml"),
)
TINY_FILMS = "python -m data_tools synthesize output=MY_VIDEOS films=6 shots=2 frames='[16, 18]'"
TINY_TRAINING = (
    "training.steps=4 training.global_batch=4 training.micro_batch=2 training.checkpoint_every=2 training.log_every=1 "
    "training.picture_every=4 training.preflight=off"
)
TINY_FBM = f"{TINY_TRAINING} objective.width=0.03125"


@dataclass(frozen=True)
class Story:
    """What a page's commands are run with.

    Attributes:
        before: lines of shell that make what the page takes for granted: the films that are the reader's own.
        smaller: words behind every command of a door: what makes it small enough for a test.
        python: blocks of Python are run, too; elsewhere they start from what is the reader's, and are only looked at.
    """

    before: tuple[str, ...] = ()
    smaller: dict[str, str] = field(default_factory=dict)
    python: bool = False


STORIES: dict[str, Story] = {
    "README.md": Story(
        before=(f"{TINY_FILMS} films=4 shots=1",),
        smaller={
            "data_tools prepare": "masks.working_side=64",
            # the full-size model's config on a CPU
            "launch/pretrain.py": f"{TINY_FBM} training.epochs=null training.device=cpu objective.size=64 data.clip.size=64 "
            "validation=null data.workers=1 data.threads=1",
            "launch/evaluate.py": "clusters.number=2 page.queries=2",
        },
    ),
    "docs/getting-started.md": Story(
        python=True,
        smaller={
            "data_tools synthesize": "films=6 shots=2 frames='[16, 18]' motions='[right, left]'",
            "data_tools prepare": "masks.working_side=64",
            "launch/pretrain.py": TINY_FBM,
            "embed.yaml": "clusters.number=2 page.queries=2",
            "probes.yaml": "folds=2 seeds='[0]'",
        },
    ),
    "docs/data.md": Story(
        python=True,
        before=(TINY_FILMS, "echo film-nobody-has > optouts.txt"),
        smaller={"data_tools plan": "sample=2 masks.kind=none", "data_tools prepare": "masks.kind=none"},
    ),
    "docs/large-collections.md": Story(
        before=(TINY_FILMS,),
        smaller={"data_tools plan": "sample=2 masks.kind=none", "data_tools prepare": "masks.kind=none"},
    ),
}


def script(page: str, story: Story) -> str:
    """The page's unmarked blocks as one script of bash, each command told before it runs."""
    lines = ["set -euo pipefail", *story.before]
    for block in blocks(ROOT / page):
        if block.marked:
            continue
        if block.is_shell:
            for line in block.lines():
                told = line.replace("'", "'\\''")
                lines += [f"echo '$ {told}' >&2", _smaller(line, story)]
        elif block.language == "python" and story.python:
            lines += ["echo '$ python' >&2", f"python - <<'PYTHON'\n{block.text}PYTHON"]
    return "\n".join(lines) + "\n"


def _smaller(line: str, story: Story) -> str:
    line = re.sub(r"\s+#\s.*$", "", line)
    line = re.sub(r"^deepspeed ", f"deepspeed --master_port {_free_port()} ", line)  # two tests may train at a time
    return " ".join([line, *(words for door, words in story.smaller.items() if door in line)])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def checkout(folder: Path) -> Path:
    """A folder that looks like a fresh checkout with its environment installed: what commands write stays in it."""
    folder.mkdir(parents=True)
    for name in IN_A_CHECKOUT:
        (folder / name).symlink_to(ROOT / name)
    if (Path(sys.prefix) / "bin" / "activate").exists():
        (folder / ".venv").symlink_to(sys.prefix)
    return folder


def environment(folder: Path) -> dict[str, str]:
    """As a reader's on a machine without GPUs, with caches of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "AWS_", "RAY_"))}
    return kept | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "CUDA_VISIBLE_DEVICES": "",
        "DS_ACCELERATOR": "cpu",
        "OMP_NUM_THREADS": "1",
        "TQDM_DISABLE": "1",
        "FBM_CACHE": str(folder / "cache"),
    }


def run(text: str, folder: Path, timeout: float = TIMEOUT) -> tuple[int, str]:
    """Run a script of bash in `folder`; its exit code and all that it wrote. Nothing of it is left running."""
    process = subprocess.Popen(
        ["bash", "-c", text],
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        told, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired as error:
        os.killpg(process.pid, signal.SIGKILL)
        told, _ = process.communicate()
        raise AssertionError(f"not done after {timeout} s:\n{told[-4000:]}") from error
    return process.returncode, told
