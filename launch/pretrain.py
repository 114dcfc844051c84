"""The door of pretraining: `deepspeed launch/pretrain.py CONFIG [a.b=c ...]`; also under torchrun, srun, or plain python."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a checkout needs no installation

from fbm_dist.door import enter
from fbm_dist.schema import Run
from fbm_dist.training.faults.stop import listening

STOPPED = 75  # EX_TEMPFAIL: a signal ended the run early; the same command goes on
PARSER = ArgumentParser(
    prog="launch/pretrain.py",
    description="Pretrain a video encoder. The same command again goes on where the run stopped.",
    epilog="CPU: deepspeed --num_accelerators 2 launch/pretrain.py configs/pretrain/fbm_cpu.yaml data.path=DIR run.folder=DIR. "
    "Exit codes: 0 finished, 1 cannot be done, 2 config error, 75 stopped by a signal or without its launcher, 76 a rank hung; "
    "after 75 and 76 the same command goes on. "
    "Send SIGTERM or SIGUSR1 to the ranks; the deepspeed runner does not pass them on.",
)


def main(run: Run) -> int:
    """Pretrain; returns the exit code."""
    with listening(run.training.hang_timeout) as request:
        from fbm_dist.run import pretrain  # takes seconds, in which a signal must not be lost

        return STOPPED if pretrain(run, request=request).interrupted else 0


if __name__ == "__main__":
    sys.exit(enter(Run, main, PARSER))
