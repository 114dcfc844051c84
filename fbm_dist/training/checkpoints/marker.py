"""What makes a folder a checkpoint: a name by its step, and complete.json, written last, with every file's size and sha256."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

MARKER = "complete.json"  # holds the manifest
FORMAT = 2


def name_of(step: int) -> str:
    """Of the checkpoint of a step."""
    return f"step-{step:08d}"


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """What a checkpoint says about itself; None where it is not whole, or of another format."""
    try:
        manifest = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and manifest.get("format") == FORMAT else None


def digest(path: Path, sync: bool = False) -> tuple[int, str]:
    """(bytes, sha256) of a file. `sync`: it must survive a power cut."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if sync:
            os.fsync(file.fileno())
    return path.stat().st_size, sha256


def damage(folder: Path, manifest: dict[str, Any], rank: int = 0, ranks: int = 1) -> str | None:
    """What is wrong with one of `ranks` shares of the files, None if nothing: reading them all is shared out."""
    for name in sorted(manifest["files"])[rank::ranks]:
        size, sha256 = manifest["files"][name]
        path = folder / name
        try:
            if path.stat().st_size != size:
                return f"{name} has {path.stat().st_size} bytes, not {size}"
            if digest(path)[1] != sha256:
                return f"{name} does not have its checksum"
        except OSError as error:
            return f"{name}: {error.strerror}"
    return None


def write_marker(folder: Path, manifest: dict[str, Any]) -> None:
    """Make `folder` a checkpoint; afterwards it survives a power cut."""
    with (folder / MARKER).open("w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """What was created, renamed or removed in `folder` survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
