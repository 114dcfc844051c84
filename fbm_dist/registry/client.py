"""The way to MLflow: one address rule, a quick ping before the slow client, its chatter kept off the console, errors in one line."""

from __future__ import annotations

import logging
import os
import re
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient

DEFAULT_URI = "sqlite:///mlflow.db"
PING_SECONDS = 5.0
SQLITE = "sqlite:///"
CHATTY = ("mlflow", "alembic", "urllib3")
# MLflow's own switches; what the user has set stays.
QUIET = {
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
}


class NotInRegistryError(ValueError):
    """MLflow answered that what was asked for does not exist."""


def tracking_address(uri: str | None = None) -> str:
    """`uri`, else MLFLOW_TRACKING_URI, else SQLite in the working folder; SQLite paths made absolute.

    Raises:
        ValueError: a folder (MLflow's file store is closed).
    """
    address = uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
    if address.startswith(SQLITE):
        path = address.removeprefix(SQLITE)
        return SQLITE + str(Path(path).absolute()) if path else address
    if "://" not in address or address.startswith("file:"):
        raise ValueError(
            f"MLflow keeps no runs in plain folders any more: write sqlite:///PATH.db instead of {address!r}"
        )
    return address


def connect(uri: str | None = None, *, create: bool = True) -> MlflowClient:
    """A client for tracking and registry at `uri` (see `tracking_address`).

    Args:
        create: False refuses an SQLite file that does not exist instead of making an empty one.
    Raises:
        ValueError: the server does not answer, or there is nothing to read.
    """
    address = tracking_address(uri)
    if address.startswith(("http://", "https://")):
        _ping(address)
    elif address.startswith(SQLITE) and not create and not Path(address.removeprefix(SQLITE)).exists():
        raise ValueError(
            f"no MLflow database at {address}; set MLFLOW_TRACKING_URI to where the encoder was registered, "
            "or give a run's folder"
        )
    for key, value in QUIET.items():
        os.environ.setdefault(key, value)
    with calling("connect", shown(address)):
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=address, registry_uri=address)
        client.search_experiments(max_results=1)  # makes or checks the database now, not in the middle of something
    return client


def shown(address: str) -> str:
    """An address without its user and password, for messages."""
    scheme, separator, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"


@contextmanager
def calling(what: str, address: str = "") -> Iterator[None]:
    """Around MLflow calls: warnings and log lines dropped, its errors turned into one line.

    Raises:
        NotInRegistryError: MLflow does not have it.
        ValueError: any other failure of MLflow; one of credentials names the variables that hold them.
    """
    loggers = [logging.getLogger(name) for name in CHATTY]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow.exceptions import MlflowException

        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        except MlflowException as error:
            message = " ".join(str(error).split())[:300]
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"):
                raise NotInRegistryError(f"MLflow cannot {what}: {message}") from None
            if error.error_code == "INVALID_PARAMETER_VALUE" and "not found" in message:
                raise NotInRegistryError(f"MLflow cannot {what}: {message}") from None
            raise ValueError(_refused(what, address, message) or f"MLflow cannot {what}: {message}") from None
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _refused(what: str, address: str, message: str) -> str | None:
    """What to do about a server that does not know the user (401), or does not let this one (403); None: it is something else."""
    found = re.search(r"failed with error code (401|403)\b", message)
    if found is None:
        return None
    if found[1] == "401":
        return (
            f"the MLflow server{f' {address}' * bool(address)} does not know you; "
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD to a user of that server"
        )
    user = os.environ.get("MLFLOW_TRACKING_USERNAME", "")
    return f"MLflow cannot {what}: the user {user} may not; ask the server's administrator for the right"


def experiment_id(client: MlflowClient, name: str) -> str:
    """The experiment called `name`, made where it is missing; beside an SQLite file its artifacts lie in the file's folder."""
    with calling(f"open experiment {name!r}"):
        found = client.get_experiment_by_name(name)
        if found is not None and found.lifecycle_stage == "deleted":
            raise ValueError(
                f"the MLflow experiment {name!r} was deleted; restore it, or name another in tracking.experiment"
            )
        if found is not None:
            return str(found.experiment_id)
        address = client.tracking_uri
        beside = None
        if address.startswith(SQLITE):
            beside = (Path(address.removeprefix(SQLITE)).parent / "mlruns" / name).as_uri()
        return str(client.create_experiment(name, artifact_location=beside))


def _ping(address: str) -> None:
    """Ask for /health. MLflow's client would try for many minutes before it gave up."""
    try:
        with urllib.request.urlopen(shown(address).rstrip("/") + "/health", timeout=PING_SECONDS):
            return
    except urllib.error.HTTPError as error:
        if error.code in (401, 403, 404):  # something answers: credentials and proxies are for the client
            return
        reason = f"HTTP {error.code}"
    except (urllib.error.URLError, OSError) as error:
        reason = str(getattr(error, "reason", error))
    raise ValueError(
        f"the MLflow server {shown(address)} does not answer ({reason}); start it, or change MLFLOW_TRACKING_URI"
    )
