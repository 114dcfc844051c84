"""Register, promote and fetch versions of an encoder in MLflow's model registry."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from fbm_dist.objectives.objective import Encoder
from fbm_dist.registry.client import NotInRegistryError, calling, connect, experiment_id, shown
from fbm_dist.registry.folder import CONFIG, WEIGHTS, Description, locate, read_description, read_encoder, sha256
from fbm_dist.schema import ClipSpec

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"
ARTIFACT = "artifacts/encoder"  # where pyfunc puts the encoder folder within a model
WEIGHTS_TAG, CONFIG_TAG = "sha256", "config_sha256"  # checksums of the two files, on version and model
RUN_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Registered:
    """One version of a registered model."""

    name: str
    version: str
    run_id: str | None  # the run that made it

    @property
    def uri(self) -> str:
        """models:/NAME/VERSION."""
        return f"models:/{self.name}/{self.version}"


def register(
    name: str,
    folder: str | Path,
    *,
    tracking_uri: str | None = None,
    run_id: str | None = None,
    metrics: Mapping[str, float] = {},
    tags: Mapping[str, str] = {},
) -> str:
    """Make a new version of the registered model `name` from an encoder folder.

    The alias `champion` is set on the first version only; it moves by `promote` alone.

    Args:
        name: e.g. fbm-encoder; made if it does not exist.
        folder: what `save_encoder` wrote, or its run's folder.
        tracking_uri: None: MLFLOW_TRACKING_URI, else sqlite:///mlflow.db.
        run_id: the MLflow run that made the encoder; None: a run of its own in the experiment `encoders`.
        metrics: shown as tags `metric.NAME` of the version.
        tags: further tags of the version.
    Returns:
        The version, e.g. "1".
    Raises:
        ValueError: no such folder, a damaged encoder, no such run, server down.
    """
    from fbm_dist.registry.model_files import write_model

    folder = locate(folder)
    description = read_description(folder)
    read_encoder(folder)  # a damaged encoder must not become a version
    checksums = {WEIGHTS_TAG: description.sha256, CONFIG_TAG: sha256(folder / CONFIG)}
    client = connect(tracking_uri)
    with tempfile.TemporaryDirectory() as temporary:
        model = write_model(folder, Path(temporary) / "model")
        with calling(f"register {name!r}"):
            run_id = run_id or _run_of_its_own(client, name)
            experiment = client.get_run(run_id).info.experiment_id
            logged = client.create_logged_model(
                experiment, name=name, source_run_id=run_id, tags=dict(tags) | checksums, model_type="encoder"
            )
            client.log_model_artifacts(logged.model_id, str(model))
            client.finalize_logged_model(logged.model_id, "READY")
            _link(client, run_id, logged.model_id)
            if not _exists(client, name):
                client.create_registered_model(name)
            created = client.create_model_version(
                name,
                source=logged.artifact_location,
                run_id=run_id,
                model_id=logged.model_id,
                tags=_tags(description, metrics) | dict(tags) | checksums,
            )
            marker = json.dumps([{"name": name, "version": int(created.version)}])
            client.set_logged_model_tags(logged.model_id, {"mlflow.modelVersions": marker})
            if int(created.version) == 1:
                client.set_registered_model_alias(name, CHAMPION, created.version)
    return str(created.version)


def promote(name: str, version: str | int, *, tracking_uri: str | None = None, alias: str = CHAMPION) -> None:
    """Move `alias` to `version` of `name`.

    Raises:
        ValueError: no such model or version.
    """
    client = connect(tracking_uri, create=False)
    find_version(client, f"models:/{name}/{version}")  # MLflow sets aliases on versions that do not exist
    with calling(f"promote {name!r}"):
        client.set_registered_model_alias(name, alias, str(version))


def load_encoder(uri: str | Path, *, device: torch.device | str = "cpu", tracking_uri: str | None = None) -> Encoder:
    """The encoder, in eval mode, its weights checked against their checksum.

    Args:
        uri: models:/NAME/VERSION, models:/NAME/latest, models:/NAME@ALIAS, runs:/RUN_ID, an encoder folder or its run's folder.
    Returns:
        `encoder(video)`: float (b, 3, t, h, w) in [-1, 1] -> named float (b, d), e.g. foreground, background, motion.
    Raises:
        ValueError: not there, changed or cut short, of an unknown family, server down.
    """
    with fetched(uri, tracking_uri) as folder:
        return read_encoder(folder, device=device)


def describe(uri: str | Path, *, tracking_uri: str | None = None) -> Description:
    """Config, clip spec, features and origin of the encoder at `uri` (as `load_encoder` takes it), without its weights."""
    with fetched(uri, tracking_uri, only_config=True) as folder:
        return read_description(folder)


def load_clip_spec(uri: str | Path, *, tracking_uri: str | None = None) -> ClipSpec:
    """How the encoder at `uri` wants its clips: frames, size, resizing."""
    return describe(uri, tracking_uri=tracking_uri).clip


def resolve(uri: str | Path, *, tracking_uri: str | None = None) -> Registered | None:
    """The registered version that `uri` means now; None where it is no models:/ URI."""
    if not str(uri).startswith("models:/"):
        return None
    found = find_version(connect(tracking_uri, create=False), str(uri))
    return Registered(found.name, str(found.version), found.run_id or None)


def tag(
    registered: Registered, tags: Mapping[str, str], *, tracking_uri: str | None = None, prefix: str | None = None
) -> None:
    """Set tags on a registered version.

    Args:
        prefix: older tags that begin with it are removed: what was measured before is not mixed with what is now.
    """
    client = connect(tracking_uri, create=False)
    with calling(f"tag {registered.uri}"):
        if prefix:
            there = client.get_model_version(registered.name, registered.version).tags
            for key in [key for key in there if key.startswith(prefix) and key not in tags]:
                client.delete_model_version_tag(registered.name, registered.version, key)
        for key, value in tags.items():
            client.set_model_version_tag(registered.name, registered.version, key, value)


@contextmanager
def fetched(uri: str | Path, tracking_uri: str | None, *, only_config: bool = False) -> Iterator[Path]:
    """A local encoder folder for `uri`; what had to be fetched is gone afterwards."""
    text = str(uri)
    if text.startswith("models:/"):
        client = connect(tracking_uri, create=False)
        found = find_version(client, text)
        source = client.get_model_version_download_uri(found.name, found.version)
        tags: Mapping[str, str] = found.tags
    elif text.startswith("runs:/") or (RUN_ID.fullmatch(text) and not Path(text).exists()):
        client = connect(tracking_uri, create=False)
        source, tags = _model_of_run(client, text.removeprefix("runs:/").strip("/"))
    else:
        yield locate(uri)
        return
    from mlflow.artifacts import download_artifacts

    with tempfile.TemporaryDirectory() as temporary:
        for name in (CONFIG,) if only_config else (CONFIG, WEIGHTS):
            with calling(f"fetch {text}"):
                download_artifacts(
                    artifact_uri=f"{source.rstrip('/')}/{ARTIFACT}/{name}",
                    dst_path=temporary,
                    tracking_uri=client.tracking_uri,
                    registry_uri=client.tracking_uri,
                )
        check_config(Path(temporary), tags, text)
        yield Path(temporary)


def check_config(folder: Path, tags: Mapping[str, str], what: str) -> None:
    """Whether config.json is the one that was registered, and names the registered weights; what tags do not say is not compared.

    Raises:
        ValueError: it was changed in the artifact store.
    """
    wanted, found = tags.get(CONFIG_TAG), sha256(folder / CONFIG)
    if wanted not in (None, found):
        raise ValueError(
            f"{what}: checksum {found[:12]} of its {CONFIG} is not {str(wanted)[:12]}, which the registry has; "
            "the file was changed after it was registered: do not use it, register the encoder again"
        )
    weights, said = tags.get(WEIGHTS_TAG), read_description(folder).sha256
    if weights not in (None, said):
        raise ValueError(
            f"{what}: its {CONFIG} names weights {said[:12]}, and the registry {str(weights)[:12]}; "
            "the file was changed after it was registered: do not use it, register the encoder again"
        )


def find_version(client: MlflowClient, uri: str) -> ModelVersion:
    """The version that models:/NAME/VERSION, models:/NAME/latest or models:/NAME@ALIAS means."""
    parsed = re.fullmatch(r"models:/([^/@]+)(?:/(\d+|latest)|@([^/@]+))/?", uri)
    if parsed is None:
        raise ValueError(
            f"{uri!r} is no model URI; write models:/NAME@ALIAS, models:/NAME/VERSION or models:/NAME/latest"
        )
    name, version, alias = parsed.groups()
    try:
        with calling(f"find {uri}"):
            if alias is not None:
                return client.get_model_version_by_alias(name, alias)
            if version != "latest":
                return client.get_model_version(name, version)
            versions = list(client.search_model_versions(f"name='{name}'"))
    except NotInRegistryError:
        versions = []
    if not versions:
        raise NotInRegistryError(f"{uri}: not in the registry at {shown(client.tracking_uri)}; {_known(client, name)}")
    return max(versions, key=lambda found: int(found.version))


def _known(client: MlflowClient, name: str) -> str:
    """What the registry does have, for a message."""
    with calling("list the registry"):
        names = sorted(model.name for model in client.search_registered_models())
        if name not in names:
            return f"it has {', '.join(names)}" if names else "it is empty"
        versions = sorted(int(found.version) for found in client.search_model_versions(f"name='{name}'"))
        aliases = sorted(client.get_registered_model(name).aliases)
    return f"{name} has versions {versions} and aliases {aliases}"


def _model_of_run(client: MlflowClient, run_id: str) -> tuple[str, Mapping[str, str]]:
    """Where the newest encoder that the run `run_id` registered lies, and its tags."""
    with calling(f"find run {run_id}"):
        run = client.get_run(run_id)
        found = client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run_id}'")
    if not found:
        raise NotInRegistryError(f"run {run_id} has registered no encoder; give its folder, or models:/NAME@ALIAS")
    newest = max(found, key=lambda model: model.creation_timestamp)
    return str(newest.artifact_location), newest.tags


def _run_of_its_own(client: MlflowClient, name: str) -> str:
    """A finished run for an encoder that comes without one: MLflow 3.17 looks a model without a run up at the global address."""
    run_id = client.create_run(experiment_id(client, "encoders"), run_name=f"register {name}").info.run_id
    client.set_terminated(run_id)
    return str(run_id)


def _exists(client: MlflowClient, name: str) -> bool:
    try:
        with calling(f"find {name!r}"):
            client.get_registered_model(name)
    except NotInRegistryError:
        return False
    return True


def _link(client: MlflowClient, run_id: str, model_id: str) -> None:
    """Show the model on its run's page."""
    from mlflow.entities import LoggedModelOutput

    client.log_outputs(run_id, [LoggedModelOutput(model_id=model_id, step=0)])


def _tags(description: Description, metrics: Mapping[str, float]) -> dict[str, str]:
    """Tags by which versions are told apart in MLflow's lists."""
    known = {key: str(value) for key, value in description.info.items() if isinstance(value, str | int | float)}
    own = {
        "family": description.objective.family,
        "parameters": str(description.parameters),
    }
    return known | own | {f"metric.{name}": f"{value:.6g}" for name, value in metrics.items()}
