"""How good is this encoder? One protocol a room: evaluate(config) -> tables, figures, results.json, MLflow."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from fbm_dist.evaluation.config import Evaluation

if TYPE_CHECKING:
    from fbm_dist.evaluation.report.results import Results


def evaluate(evaluation: Evaluation, pretrain: Callable[..., Any] | None = None) -> Results:
    """Run the protocol that `evaluation` names, print its tables and write its files.

    Every rank calls it, alone or under a launcher; every rank gets the results.

    Args:
        pretrain: `fbm_dist.run.pretrain`, for the protocols that compare pretrainings.
    Raises:
        ValueError: what the user can put right, in one line.
    """
    protocol = import_module(f"{__name__}.{evaluation.protocol}.protocol")
    assert pretrain is not None or not evaluation.pretrains, "this protocol pretrains; enter by fbm_dist.run.evaluate"
    given = (evaluation, pretrain) if evaluation.pretrains else (evaluation,)
    results: Results = protocol.evaluate(*given)
    return results
