"""The door of sweeps: `python launch/sweep.py CONFIG [a.b=c ...]`: many pretrainings with other values, by Ray Tune."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a checkout needs no installation

from fbm_dist.door import enter
from fbm_dist.sweeps.config import Sweep

PARSER = ArgumentParser(
    prog="launch/sweep.py",
    description="Try values of a pretraining's keys, several trials at a time, and keep the best encoder. "
    "The same command again goes on where the sweep stopped.",
    epilog="Example: python launch/sweep.py configs/sweep/demo.yaml data.path=DIR. Keys of the sweep (trials, space, metric ...) "
    "and of the swept run (data.path, training.steps ...) alike are a.b=c. "
    "Exit codes: 0 there is a best trial, 1 cannot be done, 2 config error, 75 or 130 stopped by a signal; then the same command goes on.",
)


def main(sweep: Sweep) -> int:
    """Run the sweep; returns the exit code."""
    from fbm_dist.sweeps.conduct import conduct  # takes seconds

    return conduct(sweep)


if __name__ == "__main__":
    sys.exit(enter(Sweep, main, PARSER))
