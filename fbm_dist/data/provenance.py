"""What a model card says of the films that an encoder was trained on: frame rates and licences, counted in the data sets' manifests."""

from __future__ import annotations

from collections import Counter

from data_tools.dataset import open_dataset
from data_tools.places import Place
from data_tools.report.manifests import manifests
from fbm_dist.schema import Data

MOST_SHARDS = 500  # of a data set; a larger one is not read again for this at the end of a run
UNSTATED = "not stated"


def films_of(data: Data) -> dict[str, dict[str, int]]:
    """Clips by frame rate (`fps`) and by licence (`licences`), over all data sets of a mixture, filters left out.

    Empty where a data set is larger than MOST_SHARDS, or is not within reach any more: `python -m data_tools stats DIR` counts it.
    """
    rates: Counter[str] = Counter()
    licences: Counter[str] = Counter()
    try:
        for portion in data.portions:
            _count(portion.path, portion.snapshot, rates, licences)
    except (ValueError, OSError):
        return {}
    return {"fps": dict(rates), "licences": dict(licences)}


def _count(root: Place, name: str, rates: Counter[str], licences: Counter[str]) -> None:
    snapshot = open_dataset(root).snapshot(name)
    if len(snapshot.shards) > MOST_SHARDS:
        raise ValueError(f"{root}: more than {MOST_SHARDS} shards")
    for table in manifests(root, snapshot):
        rates.update(f"{fps[0] / fps[1]:g}" for fps in table["fps"].to_pylist())
        licences.update(licence or UNSTATED for licence in table["licence"].to_pylist())
