"""What the registry knows of its versions: aliases, origin, figures, and the tables of the evaluations that measured them."""

from __future__ import annotations

import json
import math
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fbm_dist.registry.client import NotInRegistryError, calling
from fbm_dist.registry.versions import find_version

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

TRAINED = "metric."  # before the names of figures that came with the training
PROTOCOL = re.compile(r"([A-Za-z][A-Za-z0-9_]{0,63})\.run")  # the tag that says which run measured it; it names files
RUN = re.compile(r"[0-9a-f]{32}")
TOLD = ("run", "data")  # of a protocol: tags that are no figures
TABLES = ("results.json", "table.md")
LARGEST = 64 << 20  # bytes of such a file


@dataclass(frozen=True)
class Entry:
    """One version of a model.

    Attributes:
        aliases: sorted.
        created: seconds since 1970.
        metrics: by name: loss for what training left (tag metric.loss), PROTOCOL.COLUMN.TABLE for what an evaluation found.
    """

    name: str
    version: int
    aliases: tuple[str, ...]
    family: str
    created: float
    run_id: str | None
    tags: dict[str, str]
    metrics: dict[str, float]

    @property
    def uri(self) -> str:
        """models:/NAME/VERSION."""
        return f"models:/{self.name}/{self.version}"

    @property
    def age(self) -> str:
        """How long ago it was registered, in the largest unit."""
        seconds = max(0.0, time.time() - self.created)
        for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
            if seconds >= length:
                return f"{seconds / length:.0f} {unit}"
        return f"{seconds:.0f} s"

    def as_json(self) -> dict[str, Any]:
        """For programs; `created` in ISO 8601, UTC."""
        return {
            "model": self.name,
            "version": self.version,
            "uri": self.uri,
            "aliases": list(self.aliases),
            "family": self.family,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.created)),
            "run": self.run_id,
            "metrics": self.metrics,
            "tags": self.tags,
        }


@dataclass(frozen=True)
class Evaluated:
    """An evaluation that measured a version.

    Attributes:
        run_id: of the evaluation, in MLflow.
        data: what it was measured on.
        files: bytes of results.json and table.md by name; empty where the run or its files are gone.
    """

    protocol: str
    run_id: str
    data: str
    files: dict[str, bytes]

    @property
    def table(self) -> str | None:
        """The tables in markdown."""
        return self.files["table.md"].decode("utf-8", "replace") if "table.md" in self.files else None


def entries(client: MlflowClient, name: str | None = None) -> list[Entry]:
    """Every version of every model, or of `name`: by model, the newest first.

    Raises:
        ValueError: there is no such model.
    """
    out = []
    for model in _models(client, name):
        with calling(f"list the versions of {model.name!r}"):
            for found in _versions(client, model.name):
                out.append(_entry(found, model.aliases))
    return sorted(out, key=lambda entry: (entry.name, -entry.version))


def entry(client: MlflowClient, uri: str) -> Entry:
    """The version that models:/NAME@ALIAS, models:/NAME/VERSION or models:/NAME/latest means now.

    Raises:
        ValueError: there is none.
    """
    found = find_version(client, uri)
    with calling(f"find {uri}"):
        return _entry(found, client.get_registered_model(found.name).aliases)


def evaluated(client: MlflowClient, version: Entry) -> list[Evaluated]:
    """The evaluations whose figures `version` carries, with the tables that they left."""
    out = []
    for key, run_id in sorted(version.tags.items()):
        named = PROTOCOL.fullmatch(key)
        if named and RUN.fullmatch(run_id):
            data = version.tags.get(f"{named[1]}.data", "")
            out.append(Evaluated(named[1], run_id, data, _files(client, run_id)))
    return out


def metrics_of(tags: Mapping[str, str]) -> dict[str, float]:
    """The figures among a version's tags, finite ones alone."""
    protocols = {found[1] for key in tags if (found := PROTOCOL.fullmatch(key))}
    out = {}
    for key, value in tags.items():
        protocol, _, rest = key.partition(".")
        trained = key.startswith(TRAINED)
        if not trained and (protocol not in protocols or rest in TOLD):
            continue
        try:
            number = float(value)
        except ValueError:
            continue
        if math.isfinite(number):
            out[key.removeprefix(TRAINED) if trained else key] = number
    return dict(sorted(out.items()))


def _entry(found: ModelVersion, aliases: Mapping[str, str | int]) -> Entry:
    tags = dict(found.tags)
    return Entry(
        name=found.name,
        version=int(found.version),
        aliases=tuple(sorted(alias for alias, version in aliases.items() if int(version) == int(found.version))),
        family=tags.get("family", ""),
        created=found.creation_timestamp / 1000,
        run_id=found.run_id or None,
        tags=tags,
        metrics=metrics_of(tags),
    )


def _models(client: MlflowClient, name: str | None) -> Iterator[Any]:
    if name is not None:
        with calling(f"find {name!r}"):
            yield client.get_registered_model(name)
        return
    token = None
    while True:
        with calling("list the registry"):
            page = client.search_registered_models(page_token=token)
        for model in page:
            yield client.get_registered_model(model.name) if not model.aliases else model
        token = page.token
        if not token:
            return


def _versions(client: MlflowClient, name: str) -> Iterator[ModelVersion]:
    quoted = name.replace("'", "\\'")
    token = None
    while True:
        page = client.search_model_versions(f"name='{quoted}'", page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _files(client: MlflowClient, run_id: str) -> dict[str, bytes]:
    """The tables among a run's files; none where the run is gone, or its files are."""
    out: dict[str, bytes] = {}
    try:
        with calling("list an evaluation's files"), tempfile.TemporaryDirectory() as temporary:
            there = {item.path: item.file_size or 0 for item in client.list_artifacts(run_id) if not item.is_dir}
            for name in TABLES:
                if there.get(name, LARGEST + 1) <= LARGEST:
                    out[name] = Path(client.download_artifacts(run_id, name, temporary)).read_bytes()
    except (NotInRegistryError, OSError):
        return {}
    if "results.json" in out:
        try:
            json.loads(out["results.json"])
        except ValueError:
            del out["results.json"]
    return out
