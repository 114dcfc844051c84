"""Which of a data set's labels is meant, asked before a frame is decoded. Imports no torch."""

from __future__ import annotations

from fbm_dist.data.index.index import Index
from fbm_dist.schema import Data

USUAL = ("action", "label")  # labels that are taken without asking, in this order


def choose_label(data: Data, label: str | None, key: str = "label") -> str:
    """`label` if the data set has it; None picks "action", else "label", else the only one that there is.

    Args:
        key: the config's key for it, which errors name.
    Raises:
        ValueError: no such data set, no such label, or one that has a single value.
    """
    known = Index.open(data.path, data.snapshot).label_names
    names = ", ".join(known)
    if not known:
        raise ValueError(f"{data.path}: no clip has a label; prepare the films with a labels.csv beside them")
    if label is None:
        label = next((name for name in USUAL if name in known), next(iter(known)) if len(known) == 1 else None)
        if label is None:
            raise ValueError(f"{data.path} has several labels ({names}): choose one with {key}=NAME")
    if label not in known:
        raise ValueError(f"{data.path} has no label {label!r}; its labels: {names}: choose one with {key}=NAME")
    if len(known[label]) < 2:
        raise ValueError(
            f"{data.path}: label {label!r} has one value only ({known[label][0]!r}): nothing to tell apart"
        )
    return label
