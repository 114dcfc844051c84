"""Whether the clips that are tested were already seen, without labels, in pretraining."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from fbm_dist.data.index.index import Index, name_id
from fbm_dist.data.index.selection import digest, select
from fbm_dist.evaluation.candidates import Candidate
from fbm_dist.evaluation.clips import LabelledClips
from fbm_dist.schema import Data


def seen_in_pretraining(candidate: Candidate, tested: LabelledClips, data: Data) -> str:
    """One sentence: which share of the tested films the encoder was pretrained on, as far as can be known from here.

    Args:
        tested: the clips of the test parts.
        data: what they are read from.
    """
    if candidate.description is None:
        return "no pretraining"
    info = candidate.description.info
    pretraining = _pretraining_data(info)
    films = sorted(set(tested.film.tolist()))
    if pretraining is not None:
        try:
            index = Index.open(pretraining.path, pretraining.snapshot)
            rows = np.load(select(index, pretraining))
        except ValueError:
            pass  # moved, changed or deleted since: the digest is what is left
        else:
            known_films = set(index.rows["film"][rows].tolist())
            known_keys = {key.decode() for key in index.keys[rows]}
            by_key = {
                film for film, key in zip(tested.film.tolist(), tested.key.tolist(), strict=True) if key in known_keys
            }
            count = sum(name_id(film) in known_films or film in by_key for film in films)
            return f"{count} of {len(films)} tested films were seen in pretraining"
    return _by_digest(str(info.get("data_digest", "")), data)


def _pretraining_data(info: dict[str, Any]) -> Data | None:
    """The data section of the pretraining config, where the encoder's record has it."""
    try:
        data = Data.model_validate_json(json.dumps(info.get("data")))
    except ValidationError:
        return None
    return data if Path(data.path).is_dir() else None


def _by_digest(pretrained_on: str, data: Data) -> str:
    """Digests are "data set.filter.clip settings"."""
    if not pretrained_on:
        return (
            "unknown whether the tested films were seen in pretraining: the encoder does not say what it was trained on"
        )
    unfiltered = data.model_copy(update={"filter": type(data.filter)()})
    here = digest(Index.open(data.path, data.snapshot), unfiltered).split(".")
    there = pretrained_on.split(".")
    if there[0] != here[0]:
        return "unknown whether the tested films were seen in pretraining: it used another data set, which is not here"
    if there[1:2] == here[1:2]:
        return "all tested films were seen in pretraining (the same data set, unfiltered)"
    return "unknown whether the tested films were seen in pretraining: the same data set, another filter"
