"""Whether the clips that are tested were already seen, without labels, in pretraining."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from pydantic import ValidationError

from fbm_dist.data.index.index import Index, name_id
from fbm_dist.data.index.selection import Selected, digest, select
from fbm_dist.evaluation.encoders.candidates import Candidate
from fbm_dist.evaluation.labelled.clips import LabelledClips
from fbm_dist.schema import Data, Filter


def seen_in_pretraining(candidate: Candidate, tested: LabelledClips, data: Data) -> str:
    """One sentence: which share of the tested films the encoder was pretrained on, as far as can be known from here.

    Args:
        tested: the clips of the test parts.
        data: what they are read from.
    """
    if candidate.description is None:
        return "no pretraining"
    info = candidate.description.info
    told = _films(info, tested, data)
    if info.get("labels"):
        told += f", with their labels ({info['labels']})"
    if info.get("init_from"):
        told += f"; its first weights are of {info['init_from']}, whose films are not counted"
    return told


def _films(info: dict[str, Any], tested: LabelledClips, data: Data) -> str:
    pretraining = _pretraining_data(info)
    films = sorted(set(tested.film.tolist()))
    if pretraining is not None:
        try:
            seen: set[str] = set()
            for portion in pretraining.portions:
                index = Index.open(portion.path, portion.snapshot)
                selected = select(index, portion.filter, pretraining.clip, both_sides=False)
                seen |= _seen(index, selected, tested)
        except ValueError:
            pass  # moved, changed or deleted since: the digest is what is left
        else:
            return f"{len(seen)} of {len(films)} tested films were seen in pretraining"
    return _by_digest(str(info.get("data_digest", "")), data)


def _seen(index: Index, selected: Selected, tested: LabelledClips) -> set[str]:
    """Which tested films are among the selected clips, by name, or by the key of one of their clips."""
    film_of_id = {name_id(film): film for film in tested.film.tolist()}
    film_of_key = {key.encode(): film for key, film in zip(tested.key.tolist(), tested.film.tolist(), strict=True)}
    ids, keys = np.array(list(film_of_id), np.int64), np.array(list(film_of_key))
    seen: set[str] = set()
    for chunk, taken in selected.chunks(index):
        found = chunk.of(index.rows)["film"][taken]
        seen.update(film_of_id[number] for number in np.unique(found[np.isin(found, ids)]).tolist())
        there = chunk.of(index.keys)[taken]
        seen.update(film_of_key[key] for key in there[np.isin(there, keys)].tolist())
    return seen


def _pretraining_data(info: dict[str, Any]) -> Data | None:
    """The data section of the pretraining config, where the encoder's record has it."""
    try:
        return Data.model_validate_json(json.dumps(info.get("data")))
    except ValidationError:
        return None


def _by_digest(pretrained_on: str, data: Data) -> str:
    """Digests are "data set.filter.clip settings"."""
    if not pretrained_on:
        return (
            "unknown whether the tested films were seen in pretraining: the encoder does not say what it was trained on"
        )
    here = digest(Index.open(data.path, data.snapshot), Filter(), data.clip).split(".")
    there = pretrained_on.split(".")
    if there[0] != here[0]:
        return "unknown whether the tested films were seen in pretraining: it used another data set, which is not here"
    if there[1:2] == here[1:2]:
        return "all tested films were seen in pretraining (the same data set, unfiltered)"
    return "unknown whether the tested films were seen in pretraining: the same data set, another filter"
