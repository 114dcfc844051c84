"""Features that spell labels out, in place of an encoder's: what a protocol must find is known, and found at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from data_tools.dataset import read_manifest
from fbm_dist.evaluation.encoders.features import Features
from fbm_dist.schema import Data

Groups = Mapping[str, str | None]  # name of the group -> the label that it spells out; None: it is constant


def spelling(of: Callable[[str], Groups], asked: list[str] | None = None) -> Callable[..., Features]:
    """A stand-in for `features.extract`.

    Args:
        of: the groups of the encoder of this name.
        asked: the names of the encoders are appended as they are read.
    """

    def extract(encoder: object, data: Data, *, name: str, **_: object) -> Features:
        if asked is not None:
            asked.append(name)
        rows = read_manifest(data.path, data.snapshot).select(["key", "labels"]).to_pylist()
        told = {row["key"]: dict(row["labels"] or ()) for row in reversed(rows)}  # another order than the study's
        if data.filter.labelled is not None:
            told = {key: labels for key, labels in told.items() if data.filter.labelled in labels}
        return Features(tuple(told), {group: _spelled(told, label) for group, label in of(name).items()})

    return extract


def _spelled(told: Mapping[str, Mapping[str, str]], label: str | None) -> np.ndarray:
    """float32 (n, d): one column a value, zeros for clips that lack the label; or ones."""
    if label is None:
        return np.ones((len(told), 2), np.float32)
    values = sorted({labels[label] for labels in told.values() if label in labels})
    return np.array([[labels.get(label) == value for value in values] for labels in told.values()], np.float32)
