"""The pretrainings of the study: the config's run with the masks and the amount of data of each row, in a folder of its own."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fbm_dist.config import load
from fbm_dist.data.index.index import Index
from fbm_dist.data.index.selection import digest
from fbm_dist.evaluation.config import dotted
from fbm_dist.evaluation.noisy_masks.config import NoisyMasks, Variant
from fbm_dist.registry import describe
from fbm_dist.schema import ClipSpec, Filter, Run, RunFolder

TRAINING = (
    "checkpoint_every",
    "keep_checkpoints",
    "async_checkpoints",
    "checkpoint_mirror",
    "hang_timeout",
    "preflight",
    "log_every",
    "picture_every",
)
DATA = (
    "path",
    "snapshot",
    "filter",
    "clip",
    "workers",
    "threads",
    "prefetch",
    "cache_gb",
)  # the digest says the first four
NEUTRAL = {"training": TRAINING, "data": DATA}  # keys that change no weight of the encoder


@dataclass(frozen=True)
class Trial:
    """One row: a pretraining that is repeated with every seed.

    Attributes:
        name: of its row.
        variant: its masks.
        share: of the groups that it is pretrained on.
    """

    name: str
    variant: Variant
    share: float = 1.0


def check_same_clips(kept: Mapping[str, np.ndarray]) -> None:
    """Rows differ in their masks alone.

    Raises:
        ValueError: they read different clips: some have no true masks, or no stored ones.
    """
    (first, clips), *others = kept.items()
    for name, theirs in others:
        if not np.array_equal(clips, theirs):
            raise ValueError(
                f"variants {first!r} and {name!r} would pretrain on different clips ({len(clips)} and {len(theirs)}): not every "
                "clip has stored and true masks; leave out those variants, or name the other clips in data.filter.exclude_keys"
            )


def run_of(evaluation: NoisyMasks, trial: Trial, seed: int) -> Run:
    """The pretraining of the config file with this trial's masks and data, in a folder that is its own: another setting, another folder."""
    given = evaluation.pretraining
    overrides = [f"{key}={_yaml(value)}" for key, value in dict(dotted(given.set)).items()]
    run = load(Run, given.config, [*overrides, f"data.path={evaluation.data.path}", f"run.folder={evaluation.output}"])
    if run.data.filter != Filter() or run.data.mix:
        raise ValueError(
            f"{given.config} filters or mixes its data; give data.filter to the study instead, for all its rows"
        )
    if evaluation.shares and run.training.steps is None:
        raise ValueError(
            f"{given.config} trains for epochs, so less data would mean fewer steps; set its training.steps (and "
            "training.epochs to null) in pretraining.set, or leave shares out"
        )
    if evaluation.shares and run.validation is not None and run.validation.hold_out:
        raise ValueError(
            f"{given.config} holds out groups for validation, and shares hold out others; set validation to null in "
            "pretraining.set, or leave shares out"
        )
    if not run.data.clip.mask:
        raise ValueError(
            f"{given.config} pretrains without masks (data.clip.mask=false); give a config whose objective takes them"
        )
    clip = run.data.clip.model_dump() | {
        "use_truth_as_mask": trial.variant.masks == "truth",
        "degrade": trial.variant.degrade,
    }
    clips = evaluation.data.filter.model_copy(update={"hold_out": 1 - trial.share} if trial.share < 1 else {})
    data = run.data.model_copy(update={"clip": ClipSpec(**clip), "filter": clips, "snapshot": evaluation.data.snapshot})
    tracking = evaluation.tracking.model_copy(update={"register_as": None})
    training = run.training.model_copy(update={"device": evaluation.device})
    run = run.model_copy(update={"data": data, "tracking": tracking, "training": training})
    folder = evaluation.output / "pretraining" / f"{_slug(trial.name)}-seed{seed}-{_told(run)}"
    return run.model_copy(update={"run": RunFolder(folder=folder, seed=seed)})


def _told(run: Run) -> str:
    """A hash of everything but what is known not to shape the encoder, and the seed, which stands in the name."""
    says = run.model_dump(mode="json", exclude={"run", "tracking", "init_from"})
    for section, keys in NEUTRAL.items():
        for key in keys:
            del says[section][key]
    says["digest"] = digest(Index.open(run.data.path, run.data.snapshot), run.data.filter, run.data.clip)
    if run.initial is not None:
        says["init_from"] = [run.initial.model_dump(mode="json"), _weights(run.initial.source)]
    return hashlib.sha256(json.dumps(says, sort_keys=True).encode()).hexdigest()[:12]


def _weights(source: str) -> str | None:
    """Checksum of the encoder at `source`: an alias may move; None where it is no encoder."""
    try:
        return describe(source).sha256
    except ValueError:
        return None


def _slug(name: str) -> str:
    """A folder's name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _yaml(value: Any) -> str:
    """A value as a dotted override has it: JSON is YAML."""
    return value if isinstance(value, str) else json.dumps(value)
