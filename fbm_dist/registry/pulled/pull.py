"""Pull a version: its files into a folder of their own, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fbm_dist.inference.sums import CARD, CONFIG, PROGRAM, TABLES, VERSION, WEIGHTS, digest, read_sums, write_sums
from fbm_dist.registry.catalogue import Entry, Evaluated, entry, evaluated
from fbm_dist.registry.client import connect, shown
from fbm_dist.registry.exports.write import exported
from fbm_dist.registry.folder import read_description, read_encoder
from fbm_dist.registry.pulled.card import card
from fbm_dist.registry.pulled.verify import verify
from fbm_dist.registry.versions import CONFIG_TAG, fetched


@dataclass(frozen=True)
class Pulled:
    """A folder that holds a version; `new` False: it held it before."""

    version: Entry
    folder: Path
    tables: tuple[str, ...]
    new: bool


def pull(uri: str, folder: Path, *, program: bool = True, tracking_uri: str | None = None) -> Pulled:
    """Write encoder.safetensors, config.json, README.md, version.json, SHA256SUMS, and tables of evaluations to `folder`.

    Args:
        uri: models:/NAME@ALIAS, models:/NAME/VERSION or models:/NAME/latest.
        program: also encoder.pt2, which torch loads by itself.
    Raises:
        ValueError: no such version, files that are not those that were registered, a folder that holds something else.
    """
    client = connect(tracking_uri, create=False)
    version = entry(client, uri)
    if folder.exists() or folder.is_symlink():
        _check_same(folder, version, program)
        return Pulled(version, folder, (), new=False)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp")
    temporary.mkdir()
    try:
        with fetched(version.uri, client.tracking_uri) as there:  # the alias may move while this runs
            for name in (WEIGHTS, CONFIG):
                shutil.copyfile(there / name, temporary / name)
        tables = evaluated(client, version)
        _fill(temporary, version, tables, program, client.tracking_uri)
        for path in temporary.rglob("*"):
            if path.is_file():
                _sync(path)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Pulled(version, folder, tuple(one.protocol for one in tables if one.files), new=True)


def _fill(folder: Path, version: Entry, evaluations: Sequence[Evaluated], program: bool, address: str) -> None:
    """Everything beside the two files that were fetched."""
    description, encoder = read_description(folder), read_encoder(folder)
    if program:
        content, _ = exported(encoder, description, PROGRAM, version.uri)
        (folder / PROGRAM).write_bytes(content)
    for one in evaluations:
        for name, content in one.files.items():
            (folder / TABLES).mkdir(exist_ok=True)
            (folder / TABLES / f"{one.protocol}{Path(name).suffix}").write_bytes(content)
    origin = {
        **version.as_json(),
        "registry": shown(address) if "://" in address and "sqlite" not in address else "local",
    }
    (folder / VERSION).write_text(json.dumps(origin, indent=1) + "\n", encoding="utf-8")
    files = {path.name: digest(path) for path in sorted(folder.iterdir()) if path.name in (WEIGHTS, CONFIG, PROGRAM)}
    (folder / CARD).write_text(card(version, description, evaluations, files), encoding="utf-8")
    write_sums(folder)


def _check_same(folder: Path, version: Entry, program: bool) -> None:
    """The folder holds this very version, unharmed.

    Raises:
        ValueError: it does not.
    """
    try:
        sums = read_sums(folder)
        said = json.loads((folder / VERSION).read_text(encoding="utf-8"))
        same = (said["model"], said["version"], said["tags"].get(CONFIG_TAG)) == (
            version.name,
            version.version,
            version.tags.get(CONFIG_TAG),
        )
    except (ValueError, OSError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{folder} exists and is no pulled encoder; give another folder") from None
    if not same:
        raise ValueError(f"{folder} holds {said['uri']}, not {version.uri}; give another folder, or remove it")
    if program and PROGRAM not in sums:
        raise ValueError(f"{folder} holds {version.uri} without {PROGRAM}; give another folder, or remove it")
    try:
        verify(folder)
    except ValueError as error:
        raise ValueError(f"{error} (remove the folder first)") from None


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
