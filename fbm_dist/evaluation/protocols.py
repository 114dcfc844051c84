"""The protocols: a new room adds its config here, and nowhere else. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fbm_dist.config import ConfigError
from fbm_dist.evaluation.action_recognition.config import ActionRecognition
from fbm_dist.evaluation.config import Evaluation
from fbm_dist.evaluation.discovery.config import Discovery
from fbm_dist.evaluation.disentanglement.config import Disentanglement
from fbm_dist.evaluation.embedding.config import Embedding
from fbm_dist.evaluation.leaderboard.config import Leaderboard
from fbm_dist.evaluation.noisy_masks.config import NoisyMasks
from fbm_dist.evaluation.probes.config import Probes
from fbm_dist.evaluation.segmentation.config import Segmentation

PROTOCOLS: tuple[type[Evaluation], ...] = (
    ActionRecognition,
    Discovery,
    Embedding,
    Probes,
    Segmentation,
    Disentanglement,
    NoisyMasks,
    Leaderboard,
)
BY_NAME: Mapping[str, type[Evaluation]] = {schema.model_fields["protocol"].default: schema for schema in PROTOCOLS}


def schema_of(tree: Mapping[str, Any]) -> type[Evaluation]:
    """The config of the protocol that a config file's tree names.

    Raises:
        ConfigError: it names none, or one that is not there.
    """
    name = tree.get("protocol")
    if not isinstance(name, str) or name not in BY_NAME:
        said = "is missing" if name is None else f"is {name!r}"
        raise ConfigError(f"'protocol' {said}; it is one of {', '.join(BY_NAME)}")
    return BY_NAME[name]
