"""How good is this encoder? One protocol per file: evaluate(config) -> table, figure, results.json, MLflow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fbm_dist.schema import Evaluation

if TYPE_CHECKING:
    from fbm_dist.evaluation.results import Results


def evaluate(evaluation: Evaluation) -> Results:
    """Run the protocol that `evaluation` names, print its table and write its files.

    Raises:
        ValueError: what the user can put right, in one line.
    """
    from fbm_dist.evaluation.action_recognition import evaluate as action_recognition

    protocols = {"action_recognition": action_recognition}
    return protocols[evaluation.protocol](evaluation)
