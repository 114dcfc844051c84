"""An evaluation into MLflow: a run of its own, and the figures as tags of the model version that was evaluated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fbm_dist import registry
from fbm_dist.evaluation.candidates import Candidate
from fbm_dist.evaluation.results import Results
from fbm_dist.registry.client import calling, connect, experiment_id
from fbm_dist.schema import Evaluation

LONGEST = 500  # characters that MLflow stores of a parameter


def publish(evaluation: Evaluation, results: Results, tested: Sequence[Candidate], files: Sequence[Path]) -> str:
    """Log config, figures and files; tag the versions that came from the registry. Returns the MLflow run's id.

    Raises:
        ValueError: MLflow does not answer.
    """
    client = connect(evaluation.tracking.uri)
    main = next(row for row in results.rows if row.uri == evaluation.encoder)
    tags = {
        "protocol": results.protocol,
        "encoder": evaluation.encoder,
        "model": main.model or "",
        "sha256": main.sha256 or "",
    }
    with calling("log the evaluation"):
        from mlflow.entities import Metric, Param
        from mlflow.utils.time import get_current_time_millis

        experiment = experiment_id(client, evaluation.tracking.experiment)
        run = client.create_run(experiment, run_name=f"evaluate {results.protocol} {main.name}", tags=tags)
        now = get_current_time_millis()
        found = [
            Metric(f"{'' if row is main else _word(row.name) + '/'}{name}", value, now, 0)
            for row in results.rows
            for name, value in results.metrics(row).items()
        ]
        flat = [Param(key, str(value)[:LONGEST]) for key, value in _flat(evaluation.model_dump(mode="json"))]
        for start in range(0, len(flat), 100):
            client.log_batch(run.info.run_id, params=flat[start : start + 100])
        client.log_batch(run.info.run_id, metrics=found)
        for path in files:
            client.log_artifact(run.info.run_id, str(path))
        client.set_terminated(run.info.run_id)
    for candidate, row in zip(tested, results.rows, strict=True):
        if candidate.registered is not None:
            named = {f"{results.protocol}.{name}": f"{value:.4f}" for name, value in results.metrics(row).items()}
            origin = {f"{results.protocol}.run": run.info.run_id, f"{results.protocol}.data": str(evaluation.data.path)}
            registry.tag(candidate.registered, named | origin, tracking_uri=evaluation.tracking.uri)
    return str(run.info.run_id)


def _flat(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted leaves of a config."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, tree


def _word(name: str) -> str:
    """A row's name as MLflow allows it in a metric's name."""
    return "".join(c if c.isalnum() or c in "-_. " else "-" for c in name)
