"""The labelled clips of a data set: what each shows, its film, its group and its split, before a frame is decoded."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from data_tools.dataset import read_manifest
from fbm_dist.data.index.index import Index
from fbm_dist.data.index.selection import select
from fbm_dist.schema import Data


@dataclass(frozen=True)
class LabelledClips:
    """Clips that have the label, in reading order; arrays of one length n.

    Attributes:
        label: the label's name.
        classes: names of all its values in the snapshot, sorted: a class index points here, as the loader counts them.
        target: class index per clip, int64.
        film, group: what clips were cut from; what a split must not cut apart.
        split: the data set's own split, "" where it names none.
    """

    label: str
    classes: tuple[str, ...]
    key: np.ndarray
    target: np.ndarray
    film: np.ndarray
    group: np.ndarray
    split: np.ndarray

    def __len__(self) -> int:
        return len(self.key)

    def take(self, chosen: np.ndarray | Sequence[int]) -> LabelledClips:
        """The clips at these positions."""
        arrays = {name: getattr(self, name)[chosen] for name in ("key", "target", "film", "group", "split")}
        return replace(self, **arrays)


def labelled_clips(datas: Sequence[Data], label: str) -> LabelledClips:
    """The clips that have `label`, pass the filter and are long enough for every one of `datas` (one data set, several ClipSpecs).

    Raises:
        ValueError: no clip is left.
    """
    first = datas[0]
    index = Index.open(first.path, first.snapshot)
    kept = functools.reduce(np.intersect1d, [np.unique(select(index, data.filter, data.clip).kept) for data in datas])
    columns = read_manifest(first.path, first.snapshot).select(["key", "film", "group", "split", "labels"])
    rows = columns.take(kept).to_pylist()  # a row of the index is a row of the manifest
    values = [dict(row["labels"] or ()).get(label) for row in rows]
    rows = [row for row, value in zip(rows, values, strict=True) if value is not None]
    classes = index.label_names[label]
    number = {name: i for i, name in enumerate(classes)}
    return LabelledClips(
        label,
        classes,
        key=np.array([row["key"] for row in rows]),
        target=np.array([number[value] for value in values if value is not None], dtype=np.int64),
        film=np.array([row["film"] for row in rows]),
        group=np.array([row["group"] for row in rows]),
        split=np.array([row["split"] or "" for row in rows]),
    )


def check_classes(clips: LabelledClips) -> None:
    """Every class that occurs must be learnable and testable.

    Raises:
        ValueError: fewer than two classes, or a class with a single clip.
    """
    counts = Counter(clips.classes[i] for i in clips.target)
    if len(counts) < 2:
        raise ValueError(f"only {len(counts)} of the classes of {clips.label!r} is left by data.filter; two are needed")
    single = sorted(name for name, count in counts.items() if count < 2)
    if single:
        raise ValueError(
            f"{_listed(single)} of label {clips.label!r} {'has' if len(single) == 1 else 'have'} one clip, which cannot be in "
            "training and in test: add clips, or name their keys in data.filter.exclude_keys"
        )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f"class{'es' if len(names) > 1 else ''} {shown}"
