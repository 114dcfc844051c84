"""The door of evaluation: `python launch/evaluate.py CONFIG encoder=URI data.path=DIR [a.b=c ...]`; also under a launcher."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a checkout needs no installation

from fbm_dist.door import enter
from fbm_dist.evaluation.config import Evaluation
from fbm_dist.evaluation.protocols import schema_of

PARSER = ArgumentParser(
    prog="launch/evaluate.py",
    description="Measure encoders by the protocol that CONFIG names: tables, figures, results.json, and a run in MLflow.",
    epilog="Example: python launch/evaluate.py configs/evaluate/action_recognition.yaml "
    "encoder=models:/fbm-encoder@champion data.path=DIR. An encoder is models:/NAME@ALIAS, models:/NAME/VERSION, "
    "models:/NAME/latest, runs:/RUN_ID, a run's folder, or random. Several processes: torchrun --nproc-per-node 2 ... "
    "Exit codes: 0 done, 1 cannot be done, 2 config error.",
)


def main(evaluation: Evaluation) -> int:
    """Evaluate; returns the exit code."""
    from fbm_dist.run import evaluate

    evaluate(evaluation)
    return 0


if __name__ == "__main__":
    sys.exit(enter(schema_of, main, PARSER))
