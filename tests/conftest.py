"""Settings of all tests, and which of them may run beside each other (`make test` runs several at a time)."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

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


class Together(LoadScopeScheduling):
    """Tests of a file stay together on one worker, since they share fixtures; those of `ALONE` all do.

    By the paths, not by `xdist_group`: pytest 9.2 does not hear of the groups that pytest-xdist 3.8 makes of the marks.
    """

    def _split_scope(self, nodeid: str) -> str:
        name = nodeid.partition("::")[0].removeprefix(f"{TESTS.name}/")
        return "alone" if name.startswith(tuple(f"{folder}/" for folder in ALONE)) else name


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Together | None:
    """For `--dist loadgroup`, which is what `make test` says."""
    return Together(config, log) if config.getvalue("dist") == "loadgroup" else None
