"""What each command of `python -m fbm_dist.registry` does: settings in, a report out, with `lines()` for people and `as_json()`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from fbm_dist.registry import settings, views
from fbm_dist.registry.catalogue import entries, entry, evaluated
from fbm_dist.registry.client import connect
from fbm_dist.registry.exports.write import export_encoder
from fbm_dist.registry.folder import read_description, read_encoder
from fbm_dist.registry.promotion import promote_by
from fbm_dist.registry.pulled.pull import pull
from fbm_dist.registry.pulled.verify import verify
from fbm_dist.registry.versions import describe, fetched, resolve


@dataclass(frozen=True)
class Report:
    """What a command found: for people and for programs."""

    shown: tuple[RenderableType, ...]
    value: Any


def list_versions(given: settings.List) -> Report:
    """Every version there is."""
    found = entries(connect(given.registry, create=False), given.name)
    return Report(views.listed(found), [one.as_json() for one in found])


def show(given: settings.Show) -> Report:
    """Everything about one version."""
    client = connect(given.registry, create=False)
    version = entry(client, given.uri)
    description = describe(version.uri, tracking_uri=client.tracking_uri)
    tables = evaluated(client, version)
    found = version.as_json() | {
        "config": description.model_dump(mode="json"),
        "evaluations": [views.evaluation_json(one) for one in tables],
    }
    return Report(views.shown(version, description, tables, with_tables=given.tables), found)


def compare(given: settings.Compare) -> Report:
    """Figures beside each other, and what differs in the configs."""
    client = connect(given.registry, create=False)
    versions = [entry(client, uri) for uri in given.uris]
    twice = next((v.uri for i, v in enumerate(versions) if v.uri in [w.uri for w in versions[:i]]), None)
    if twice:
        raise ValueError(f"{twice} is named twice; give different versions")
    configs = [describe(one.uri, tracking_uri=client.tracking_uri) for one in versions]
    differences = views.differences(configs)
    found = {
        "versions": [one.as_json() for one in versions],
        "differences": {key: dict(zip([v.uri for v in versions], values, strict=True)) for key, values in differences},
    }
    return Report(views.compared(versions, differences), found)


def promote(given: settings.Promote) -> Report:
    """Move an alias, if the gate opens."""
    done = promote_by(
        given.uri,
        given.metric,
        mode=given.mode,
        alias=given.alias,
        force=given.force,
        reason=given.reason,
        by=given.by,
        tracking_uri=given.registry,
    )
    before = done.champion.uri if done.champion else None
    return Report((done.line(),), {"uri": done.version.uri, "alias": done.alias, "before": before, "moved": done.moved})


def pull_version(given: settings.Pull) -> Report:
    """A version into a folder."""
    done = pull(given.uri, given.to, program=given.program, tracking_uri=given.registry)
    tables = f"; tables of {', '.join(done.tables)}" if done.tables else ""
    line = (
        f"{done.version.uri} is in {done.folder}{tables}"
        if done.new
        else f"{done.folder} holds {done.version.uri} already"
    )
    return Report((line,), {"uri": done.version.uri, "folder": str(done.folder), "new": done.new})


def export(given: settings.Export) -> Report:
    """An encoder into one file."""
    registered = resolve(given.uri, tracking_uri=given.registry)
    source = registered.uri if registered else Path(given.uri).name
    with fetched(registered.uri if registered else given.uri, given.registry) as folder:
        encoder, description = read_encoder(folder), read_description(folder)
    digest, far = export_encoder(encoder, description, given.to, source=source)
    line = f"{given.to}: sha256 {digest}; features within {far:.1g} of the encoder's"
    return Report((line,), {"file": str(given.to), "sha256": digest, "far": far})


def verify_folder(given: settings.Verify) -> Report:
    """A pulled folder, looked through."""
    found = verify(given.folder, against=given.against, tracking_uri=given.registry)
    value = {"uri": found.uri, "files": found.files, "far": found.far, "against": found.against}
    return Report(tuple(found.lines()), value)
