"""Small folders in the naming of public data sets: what the tests of layouts start from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_tools.building.pipeline import prepare
from data_tools.dataset import read_manifest
from data_tools.sources.labels import Annotation
from data_tools.sources.layouts import Options, Said, read
from tests.films import film, settings


def texts(root: Path, files: Mapping[str, str]) -> Path:
    """Lists, by their paths."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def films(root: Path, frames: Mapping[str, int]) -> Path:
    """Tiny films, each of a scene of its own, by their paths."""
    for scene, (name, count) in enumerate(frames.items(), 1):
        film(root / name, (scene, count))
    return root


def prepared(root: Path, output: Path, *more: str) -> dict[tuple[str, int], dict[str, Any]]:
    """Rows of the manifest that `prepare` makes, by source and first frame."""
    prepare(settings(root, output, "shots.detector=none", "workers=1", *more))
    return {(row["source"], row["span"][0]): row for row in read_manifest(output).to_pylist()}


def facts(row: Mapping[str, Any]) -> tuple[dict[str, str], str | None, str | None]:
    """(labels, group, split) of a row of a manifest."""
    return dict(row["labels"]), row["group"], row["split"]


def said(layout: str, root: Path, sources: Sequence[str], split: int | str = 1, boxes: str | None = None) -> Said:
    """What a layout says, without any film."""
    return read(layout, root, sources, Options(split, boxes))


def only(said: Said, source: str) -> Annotation:
    """The one row of a film."""
    (row,) = said.rows[source]
    return row
