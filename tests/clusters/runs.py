"""The run that all launchers share: FBM in small on real shards, two processes, ZeRO-2, fp32; and what is compared of it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parent.parent.parent
DOOR = str(ROOT / "launch/pretrain.py")
STEPS = 16
WORDS = (
    str(ROOT / "configs/pretrain/fbm_cpu.yaml"),
    "objective.width=0.05",
    "training.global_batch=4",
    "training.micro_batch=1",  # two micro-batches a process: accumulation crosses the nodes, too
    "training.zero_stage=2",
    f"training.steps={STEPS}",
    "training.checkpoint_every=5",
    "training.log_every=1",
    "training.picture_every=0",
    "training.preflight=off",
    "tracking.mlflow=false",
    "tracking.register_as=null",
)
# Of a logged line, what the training computes; the rest is the clock's and the machine's.
COMPUTED = ("step", "loss", "rec_", "feature", "mask_share", "grad_norm", "lr", "epoch", "skipped", "undecodable")


def arguments(data: Path, folder: Path) -> list[str]:
    """CONFIG and overrides of the shared run, on `data`, in `folder`."""
    return [*WORDS, f"data.path={data}", f"run.folder={folder}"]


def environment(**variables: str) -> dict[str, str]:
    """Of a user's shell with the project's programs in PATH: nothing of a launcher that may have started these tests."""
    launchers = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_SIZE", "MASTER_", "SLURM_", "GLOO_", "PDSH_", "DS_ENV")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(launchers)}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    return {**kept, "PATH": path, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", **variables}


def losses(folder: Path) -> list[dict[str, Any]]:
    """The computed numbers of every logged line of a run, in order; a torn last line is left out."""
    path = folder / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    lines = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
    return [{name: value for name, value in line.items() if name.startswith(COMPUTED)} for line in lines]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The encoder that a finished run has kept."""
    return load_file(folder / "encoder/encoder.safetensors")


def assert_same(folder: Path, reference: Path) -> None:
    """Two finished runs came to the same numbers, bit for bit: losses, gradient norms, rates at every step, and weights."""
    ours, theirs = losses(folder), losses(reference)
    assert [line["step"] for line in ours] == list(range(1, STEPS + 1)), "a step is missing, or is there twice"
    assert all(line["grad_norm"] > 0 and line["rec_first_foreground"] > 0 for line in ours)
    assert ours == theirs
    mine, other = weights(folder), weights(reference)
    assert mine.keys() == other.keys()
    assert all(torch.equal(mine[name], other[name]) for name in mine)
