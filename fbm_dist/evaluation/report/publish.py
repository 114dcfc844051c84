"""An evaluation into MLflow: a run of its own, and the figures as tags of the model version that was evaluated."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fbm_dist import registry
from fbm_dist.evaluation.config import Evaluation
from fbm_dist.evaluation.report.results import Results, metric_name
from fbm_dist.registry.client import calling, connect, experiment_id

PLAIN = re.compile(r"[\w.-]+")  # keys that MLflow takes for names; a section with others is told as one value
LONGEST = 500  # characters that MLflow stores of a parameter


def publish(evaluation: Evaluation, results: Results, files: Sequence[Path], data: str = "") -> str:
    """Log config, figures and files; tag the versions that came from the registry. Returns the MLflow run's id.

    Args:
        data: what was evaluated on, for the tags.
    Raises:
        ValueError: MLflow does not answer.
    """
    client = connect(evaluation.tracking.uri)
    main = next(subject for subject in results.subjects if subject.name == results.main)
    tags = {
        "protocol": results.protocol,
        "encoder": main.uri,
        "model": main.model or "",
        "sha256": main.sha256 or "",
    }
    with calling("log the evaluation"):
        from mlflow.entities import Metric, Param
        from mlflow.utils.time import get_current_time_millis

        experiment = experiment_id(client, evaluation.tracking.experiment)
        run = client.create_run(experiment, run_name=f"evaluate {results.protocol} {main.name}", tags=tags)
        status = "FAILED"
        try:
            now = get_current_time_millis()
            found = [
                Metric(f"{'' if subject is main else metric_name(subject.name) + '/'}{name}", value, now, 0)
                for subject in results.subjects
                for name, value in results.metrics(subject.name).items()
            ]
            flat = [Param(key, str(value)[:LONGEST]) for key, value in _flat(evaluation.model_dump(mode="json"))]
            for start in range(0, len(flat), 100):
                client.log_batch(run.info.run_id, params=flat[start : start + 100])
            for start in range(0, len(found), 1000):
                client.log_batch(run.info.run_id, metrics=found[start : start + 1000])
            for path in files:
                client.log_artifact(run.info.run_id, str(path))
            status = "FINISHED"
        finally:
            client.set_terminated(run.info.run_id, status)
    for subject in results.subjects:
        registered = registry.resolve(subject.model, tracking_uri=evaluation.tracking.uri) if subject.model else None
        if registered is not None:
            named = {f"{results.protocol}.{name}": f"{v:.4f}" for name, v in results.metrics(subject.name).items()}
            origin = {f"{results.protocol}.run": run.info.run_id, f"{results.protocol}.data": data}
            registry.tag(
                registered, named | origin, tracking_uri=evaluation.tracking.uri, prefix=f"{results.protocol}."
            )
    return str(run.info.run_id)


def _flat(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted leaves of a config."""
    if isinstance(tree, dict) and all(PLAIN.fullmatch(key) for key in tree):
        for key, value in tree.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, tree
