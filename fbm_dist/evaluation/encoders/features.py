"""An encoder's named features of every clip of a data set, and whether they can be used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fbm_dist.evaluation.encoders.candidates import Candidate
from fbm_dist.evaluation.world import shared_pass
from fbm_dist.objectives.objective import Encoder
from fbm_dist.schema import Data
from fbm_dist.training.distributed import World, agreed


@dataclass(frozen=True)
class Features:
    """Features of n clips."""

    key: tuple[str, ...]
    groups: dict[str, np.ndarray]  # by name: float32 (n, d)

    def of(self, keys: Sequence[str]) -> dict[str, np.ndarray]:
        """The features of these clips, in this order."""
        position = {key: i for i, key in enumerate(self.key)}
        rows = [position[key] for key in keys]
        return {name: value[rows] for name, value in self.groups.items()}


@torch.inference_mode()
def extract(
    encoder: Encoder,
    data: Data,
    *,
    batch: int,
    world: World,
    name: str,
    done: Callable[[int], None] = lambda clips: None,
) -> Features:
    """Run the encoder, in eval mode, once over the clips that data.filter leaves; each rank takes its share, all get everything.

    Args:
        name: of the encoder, for messages.
        done: called with the number of clips of each batch.
    Raises:
        ValueError: a feature is NaN or infinite, or no clip could be decoded.
    """
    keys: list[str] = []
    parts: dict[str, list[np.ndarray]] = {}
    clips = shared_pass(data, batch, world)
    with world.agreed():
        encoder = encoder.to(world.device).eval()
        for clip in clips:
            for group, value in encoder(clip.video).items():
                parts.setdefault(group, []).append(value.float().cpu().numpy())
            keys.extend(clip.key)
            done(len(clip))
    shares = world.gather((keys, {group: np.concatenate(values) for group, values in parts.items()}))
    shares = [share for share in shares if share[0]]
    if not shares:
        raise agreed(f"{data.path}: no clip could be decoded; see: python -m data_tools verify {data.path}")
    groups = {group: np.concatenate([share[1][group] for share in shares]) for group in shares[0][1]}
    features = Features(tuple(key for share in shares for key in share[0]), groups)
    _check_finite(features, name)
    return features


def of_every_seed(
    candidate: Candidate, data: Data, *, seeds: Sequence[int], batch: int, world: World
) -> list[Features]:
    """Features of an encoder under test: one a seed for random, one for others. Every rank calls it, all get everything.

    Raises:
        ValueError: as `extract`.
    """
    out = []
    own = candidate.seeds(seeds)
    for seed in own:
        with world.agreed():
            encoder = candidate.encoder(seed)
        out.append(extract(encoder, data, batch=batch, world=world, name=candidate.name))
        told = f", seed {seed}" if len(own) > 1 else ""
        world.say(f"features: {candidate.name}{told}, {len(out[-1].key)} clips")
    return out


def _check_finite(features: Features, name: str) -> None:
    for group, value in features.groups.items():
        broken = np.flatnonzero(~np.isfinite(value).all(axis=1))
        if len(broken):
            raise agreed(
                f"encoder {name}: its {group} features are NaN or infinite for {len(broken)} of {len(value)} clips "
                f"(the first: {features.key[broken[0]]}); the encoder is broken, take an earlier version"
            )
