"""Settings of all tests, and which of them may run beside each other (`make test` runs several at a time)."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

settings.register_profile("timeless", deadline=None)  # how long an example takes says how busy the machine is
settings.load_profile("timeless")

TESTS = Path(__file__).parent
# These start launchers, ssh servers, Slurm or Ray on ports of this machine: one after the other.
ALONE = ("clusters", "launch", "data_tools/execution", "fbm_dist/sweeps")


def pytest_configure(config: pytest.Config) -> None:
    """Let ranks be forked from here whatever ran before: autograd's first backward looks for GPUs once, and starts no threads.

    Without that, `torch.export` in one test, which feigns a GPU, broke every later test of ranks. `-m gpu` keeps the GPUs.
    """
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    torch.ones(1, requires_grad=True).backward()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of a file stay together, since they share fixtures; those of `ALONE` all do."""
    for item in items:
        name = item.path.relative_to(TESTS).as_posix()
        group = "alone" if name.startswith(tuple(f"{folder}/" for folder in ALONE)) else name
        item.add_marker(pytest.mark.xdist_group(group))
